"""A pack in training: its state on the devices, its progress on the host, and the phases of the training loop."""

import collections
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from percept_jax.data import feed, preprocess
from percept_jax.data.feed import ResidentFeed
from percept_jax.data.sampler import Sampler
from percept_jax.data.spec import Dataset
from percept_jax.experiment import Experiment, HParams, stack_hparams
from percept_jax.files import Lock
from percept_jax.training import checkpoint, evaluation, init_from, parallel
from percept_jax.training.pack_checkpoints import PackCheckpoints, Resumed
from percept_jax.training.parallel import CompiledProgram
from percept_jax.training.reporter import Reporter
from percept_jax.training.step import State
from percept_jax.training.trial import Progress, Stopwatch, Trial, result_of
from percept_jax.trees import flatten

# The least time between checkpoints at validations: on tiny data an epoch may be a single step.
SAVE_SECONDS = 10.0
PHASES = ("start", "compile", "train", "eval", "waiting_for_data")


class Pack:
    """Trials in training: the train state `[K, ...]` on the devices, the progress of each trial on the host.

    `start` sets the four attributes declared here. `best` holds the variables of each trial's best validated step.
    """

    state: State
    best: Any
    hparams: HParams
    feed: ResidentFeed

    def __init__(
        self,
        trials: Sequence[Trial],
        dataset: Dataset,
        compiled: CompiledProgram,
        report: Reporter,
        began: float,
        pack_lock: Lock | None = None,
    ):
        first = trials[0].experiment
        self.trials, self.dataset, self.devices, self.report, self._began = trials, dataset, compiled.devices, report, began
        self.preprocessing = preprocess.fit(first.normalize, dataset, compiled.program.task.name)
        self.train_index = dataset.spec.roles["train"]
        self.batch = first.batch(len(self.train_index))
        self.steps = first.total_steps(len(self.train_index))
        self.epoch_steps = len(self.train_index) / self.batch
        self.eval_every = first.validation_steps(len(self.train_index))
        self._checkpoint_every, self._saved = first.checkpoint_every, time.monotonic()
        self._samplers = [Sampler(t.experiment.seed, len(self.train_index), self.batch) for t in trials]
        self.program, self._compiled = compiled.program, compiled
        self._eval_batch = feed.evaluation_batch_size(dataset, len(self.devices) if len(trials) == 1 else 1)
        self._checkpoints = PackCheckpoints(trials, pack_lock)
        self.step, self.progress = 0, [Progress() for _ in trials]
        # The seconds of this process, and those of the processes before it.
        self.clock, self._earlier = Stopwatch(), Stopwatch()
        self._in_flight: collections.deque = collections.deque()
        # The leaves of trials that --stop_after has ended, as their checkpoints hold them.
        self._stopped: dict[int, dict[str, np.ndarray]] = {}
        # The speed is measured from this step and time on.
        self._has_stepped, self._segment = False, (0, time.monotonic())

    @property
    def over(self) -> bool:
        """Whether the last step has been done, or every trial has ended early."""
        return self.step >= self.steps or all(progress.ended for _, _, progress in self._live())

    @property
    def due(self) -> bool:
        """Whether a checkpoint is due: every --checkpoint_every steps, else at validations that are SAVE_SECONDS apart."""
        if self._checkpoint_every:
            return self.step % self._checkpoint_every == 0
        # The last validation before the end always saves: --extend can continue from there, see `extension`.
        wanted = self.step + self.eval_every > self.steps or time.monotonic() >= self._saved + SAVE_SECONDS
        return self.step % self.eval_every == 0 and wanted

    def _live(self) -> Iterator[tuple[int, Trial, Progress]]:
        """Yields position, trial and progress of the trials that are not padding."""
        for k, (trial, progress) in enumerate(zip(self.trials, self.progress, strict=True)):
            if trial.run_dir:
                yield k, trial, progress

    def start(self) -> None:
        """Places data and state on the devices: the state of the newest checkpoint, or else that of step 0."""
        hparams = stack_hparams([t.experiment for t in self.trials], self.steps)
        with self.clock("compile"):
            self.state = self._place(self._compiled.init(hparams))
            # A copy, since a step donates its state.
            self.best = parallel.select(np.ones(len(self.trials), bool), self.state.variables, self.state.variables)
        first = self.trials[0].experiment
        resumed = self._resume(first)
        if not resumed and first.init_from:
            self._start_from(first.init_from)
        self.hparams = self._place(hparams)
        data = preprocess.device_data(self.dataset, self.preprocessing, hparams.learning_rate.dtype)
        self.feed = ResidentFeed(parallel.place(data, self.devices), self.dataset.spec.roles, self._samplers, self._eval_batch)
        with self.clock("compile"):
            evaluation.evaluate(self._compiled.evaluate, self.best, self.feed.nothing())
        names = [f"{d.platform}:{d.id} {d.device_kind}" for d in self.devices]
        for k, trial, _ in self._live():
            checksum, extends = (resumed.rows[k][1]["log"], resumed.extends) if resumed else (None, None)
            trial.directory.begin(self.step, names, self.program.task, len(self.trials), checksum, extends)
        self.report.start(self.step, self.steps, self.program.task.metrics)

    def _place(self, tree: Any) -> Any:
        return parallel.place(tree, self.devices, len(self.trials))

    def _start_from(self, weights: str) -> None:
        """Replaces the initial variables with those of a file or run; a new head keeps the values drawn for it."""
        drawn = jax.device_get({"params": self.state.params, "batch_stats": self.state.batch_stats})
        loaded, new = init_from.start_each(weights, drawn, self.program.outputs.num_classes, len(self.trials))
        loaded = self._place(loaded)
        average = jax.tree.map(jnp.copy, loaded) if self.state.average else {}
        self.state = self.state._replace(**loaded, average=average)
        self.best = jax.tree.map(jnp.copy, loaded)
        self.report.note(f"weights of {weights}" + (f"; new: {', '.join(new)}" if new else ""))

    def _resume(self, first: Experiment) -> Resumed | None:
        """Resumes from a checkpoint if there is one. Raises as `PackCheckpoints.resume`, and UsageError for changed data."""
        tree = {"state": self.state, "best": self.best}
        template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), tree)
        drawn = flatten(tree)
        rows = [{name: leaf[k] for name, leaf in drawn.items()} for k in range(len(self.trials))]
        found = self._checkpoints.resume(first, self.steps, self.eval_every, rows, template)
        for k, (arrays, header) in found.rows.items() if found else ():
            begun = found.extends[0] if found and found.extends else self.trials[k].directory.path
            self.dataset.check(header["data_crc"], first.dataset, begun)
            rows[k], self.progress[k], self.step = arrays, Progress(**header["progress"]), header["step"]
            if self.progress[k].stopped_at is not None:
                self._stopped[k] = arrays
            self._earlier = Stopwatch(header["seconds"])
        if found:
            trees = [checkpoint.unflatten(arrays, template) for arrays in rows]
            tree = self._place(jax.tree.map(lambda *leaves: np.stack(leaves), *trees))
            self.state, self.best = tree["state"], tree["best"]
            for line in found.notes:
                self.report.note(line)
        return found

    def advance(self) -> None:
        """Advances every trial by one step; waits for the result of the step IN_FLIGHT steps before."""
        with self.clock("waiting_for_data"):
            data, index = self.feed(self.step)
        if not self._has_stepped:
            self.clock["start"] = time.time() - self._began - self.clock["compile"]
        with self.clock("train" if self._has_stepped else "compile"):
            self.state, sums = self._compiled.train(self.state, index, self.hparams, data)
            self.step += 1
            self._in_flight.append((self.step, sums))
            self._settle(evaluation.IN_FLIGHT)
        if not self._has_stepped:
            self._has_stepped = True
            self._new_segment()

    def _settle(self, allowed: int) -> None:
        """Fetches and adds the sums of all but the last `allowed` steps, and logs at the end of each logging window."""
        while len(self._in_flight) > allowed:
            step, sums = self._in_flight.popleft()
            sums = jax.device_get(sums)
            for k, trial, progress in self._live():
                if progress.ended:
                    continue
                progress.add({name: value[k] for name, value in sums.items()})
                if not math.isfinite(progress.sums["loss"]):
                    progress.diverged_at, progress.sums = step, {}
                elif step == self.steps or step % trial.experiment.log_every == 0:
                    self._log_train(trial, progress, step)

    def _log_train(self, trial: Trial, progress: Progress, step: int) -> None:
        since, began = self._segment
        rate = (step - since) * self.batch / (time.monotonic() - began) if step > since else None
        self._log(trial, "train", step, progress.window(rate, self.program.task))

    def _log(self, trial: Trial, split: str, step: int, numbers: dict[str, Any]) -> None:
        record = {"step": step, "epoch": step / self.epoch_steps, "split": split, **numbers}
        trial.directory.log(record)
        self.report.log(record)

    def validate(self) -> None:
        """Evaluates the validation split, and keeps the variables of each trial that has improved."""
        with self.clock("train"):
            self._settle(0)
        with self.clock("eval"):
            totals = self._totals(self.state.variables, "validation")
            better, key = np.zeros(len(self.trials), bool), self.program.task.selection_key
            for k, trial, progress in self._live():
                numbers = evaluation.metrics(totals, k, self.program)
                if not progress.ended and not math.isfinite(numbers["loss"]):
                    progress.diverged_at = self.step
                if not progress.ended:
                    self._log(trial, "validation", self.step, numbers)
                    best = progress.best
                    better[k] = best is None or key(numbers) > key(best)
                    if best is None or better[k]:
                        progress.best = {"step": self.step, **numbers}
                    elif 0 < trial.experiment.stop_after * self.epoch_steps <= self.step - best["step"]:
                        progress.stopped_at = self.step
                        self.report.note(f"stopped: no better validation since step {best['step']}")
            self.best = parallel.select(better, self.state.variables, self.best)
            ended = [k for k, _, progress in self._live() if progress.stopped_at == self.step]
            self._stopped |= {k: self._leaves(k) for k in ended} if len(self.trials) > 1 else {}
        self._new_segment()

    def _leaves(self, k: int, arrays: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
        """Returns copies of the leaves of trial `k` for a checkpoint: the next step donates the state."""
        arrays = arrays or flatten({"state": self.state, "best": self.best})
        return {name: np.array(array[k]) for name, array in arrays.items()}

    def _new_segment(self) -> None:
        """Starts to measure the speed anew, over steps without compilation, evaluation or saving between them."""
        self._segment = self.step, time.monotonic()

    def _totals(self, variables: Any, split: str) -> dict[str, np.ndarray]:
        return evaluation.evaluate(self._compiled.evaluate, variables, self.feed.split(split))

    def save(self) -> None:
        """Starts to write a checkpoint of every trial; of a diverged trial, only the best variables."""
        with self.clock("train"):
            self._settle(0)
        arrays = flatten({"state": self.state, "best": self.best})
        seconds, rows = self._seconds(), {}
        for k, trial, progress in self._live():
            leaves = self._stopped.get(k) or self._leaves(k, arrays)
            if not progress.ended and not all(np.isfinite(leaf).all() for leaf in leaves.values()):
                progress.diverged_at = self.step
            if progress.diverged_at is not None:
                leaves = {name: leaf for name, leaf in leaves.items() if name.startswith("best/")}
            rows[k] = (
                leaves,
                {
                    "step": self.step,
                    "steps": self.steps,
                    "identity": trial.directory.identity,
                    "data_crc": self.dataset.crc,
                    "experiment": trial.experiment.science(),
                    "preprocessing": self.preprocessing._asdict(),
                    "progress": dataclasses.asdict(progress),
                    "seconds": seconds,
                    "log": trial.directory.log_checksum(),
                },
            )
        self._checkpoints.save(self.step, rows, self.over)
        self._saved = time.monotonic()
        self._new_segment()

    def wait(self) -> None:
        """Waits until the last checkpoint is on disk. Raises StorageError if it could not be written."""
        self._checkpoints.saver.wait()

    def close(self) -> None:
        """Ends the thread that writes checkpoints."""
        self._checkpoints.saver.close()

    def test(self) -> dict[str, np.ndarray]:
        """Evaluates the best variables on the test split, see `evaluation.evaluate`; waits for the last checkpoint."""
        self._settle(0)
        with self.clock("eval"):
            totals = self._totals(self.best, "test")
        self.wait()
        return totals

    def finish(self, totals: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        """Writes the result of each trial; `totals` are those of `test`."""
        results = []
        for k, trial, progress in self._live():
            test = None
            if progress.diverged_at is None and not math.isfinite(totals["loss"][k]):
                progress.diverged_at = self.step
            if progress.diverged_at is None:
                test = evaluation.metrics(totals, k, self.program)
                self._log(trial, "test", progress.stopped_at or self.step, test)
                if "confusion" in totals:
                    trial.directory.write_confusion(totals["confusion"][k], self.preprocessing.classes)
            result = self._result(trial, progress, test)
            trial.directory.write_result(result)
            results.append(result)
        return results

    def _seconds(self) -> dict[str, float]:
        """Returns the seconds of all processes so far, by phase; `wall` is the total without what a killed process lost."""
        self.clock["wall"] = time.time() - self._began
        return {phase: round(self.clock[phase] + self._earlier[phase], 3) for phase in (*PHASES, "wall")}

    def _result(self, trial: Trial, progress: Progress, test: dict[str, Any] | None) -> dict[str, Any]:
        # Padding trials repeat an experiment.
        sharing = len({repr(t.experiment) for t in self.trials})
        parameters = sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(self.state.params))
        return result_of(trial.directory.restarts, progress, test, self.step, parameters, self._seconds(), sharing)
