"""A pack on its way: state on the devices, progress on the host, and the phases that the loop goes through."""

import collections
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from percept_jax.data import feed, preprocess
from percept_jax.data.feed import ResidentFeed
from percept_jax.data.sampler import Sampler
from percept_jax.data.spec import Dataset
from percept_jax.experiment import Experiment, stack_hparams
from percept_jax.files import Lock
from percept_jax.training import checkpoint, evaluation, init_from, parallel
from percept_jax.training.pack_checkpoints import PackCheckpoints, Resumed
from percept_jax.training.parallel import Functions
from percept_jax.training.reporter import Reporter
from percept_jax.training.trial import Progress, Stopwatch, Trial, result_of
from percept_jax.trees import flatten

# Between checkpoints that nobody asked for: on tiny data an epoch may be a step.
SAVE_SECONDS = 10.0
PHASES = ("start", "compile", "train", "eval", "waiting_for_data")


class Pack:
    """Trials on their way: the state `[K, ...]` on the devices, their progress on the host, and the programs between."""

    def __init__(
        self,
        trials: Sequence[Trial],
        dataset: Dataset,
        functions: Functions,
        report: Reporter,
        began: float,
        held: Lock | None = None,
    ):
        first = trials[0].experiment
        self.trials, self.dataset, self.devices, self.report, self._began = trials, dataset, functions.devices, report, began
        self.preprocessing = preprocess.fit(first.normalize, dataset)
        self.train_index = dataset.spec.roles["train"]
        self.batch = first.batch(len(self.train_index))
        self.steps = first.total_steps(len(self.train_index))
        self.epoch_steps = len(self.train_index) / self.batch
        self.eval_every = first.validation_steps(len(self.train_index))
        self._checkpoint_every, self._saved = first.checkpoint_every, time.monotonic()
        self._samplers = [Sampler(t.experiment.seed, len(self.train_index), self.batch) for t in trials]
        self.program, self._functions = functions.program, functions
        self._eval_batch = feed.evaluation_batch_size(dataset, len(self.devices) if len(trials) == 1 else 1)
        self._data_crc = dataset.crc
        self._checkpoints = PackCheckpoints(trials, held)
        # Of this process, and of those before it.
        self.clock, self._earlier = Stopwatch(), Stopwatch()
        self._in_flight: collections.deque = collections.deque()
        # What a checkpoint holds of trials that --stop_after has ended.
        self._stopped: dict[int, dict[str, np.ndarray]] = {}

    @property
    def over(self) -> bool:
        """Whether the last step is done, or no trial is left to train."""
        return self.step >= self.steps or all(progress.ended for _, _, progress in self._live())

    @property
    def due(self) -> bool:
        """Whether a checkpoint is: as often as asked for, else at validations, but not twice within SAVE_SECONDS."""
        if self._checkpoint_every:
            return self.step % self._checkpoint_every == 0
        # The last validation before the end is one that a longer run has too, see `extension`.
        wanted = self.step + self.eval_every > self.steps or time.monotonic() >= self._saved + SAVE_SECONDS
        return self.step % self.eval_every == 0 and wanted

    def _live(self) -> Iterator[tuple[int, Trial, Progress]]:
        """The trials that do more than fill the pack up, with their places in it."""
        for k, (trial, progress) in enumerate(zip(self.trials, self.progress, strict=True)):
            if trial.run_dir:
                yield k, trial, progress

    def start(self) -> None:
        """Data and state on the devices: the state of the newest checkpoint, or else of step 0."""
        hparams = stack_hparams([t.experiment for t in self.trials], self.steps)
        with self.clock("compile"):
            self.state = self._place(self._functions.init(hparams))
            everyone = np.ones(len(self.trials), bool)
            # A copy: a step uses up its state.
            self.best = _keep(everyone, self.state.variables, self.state.variables)
        self.step, self.progress = 0, [Progress() for _ in self.trials]
        first = self.trials[0].experiment
        resumed = self._resume(first)
        if not resumed and first.init_from:
            self._begin_from(first.init_from)
        self.hparams = self._place(hparams)
        data = preprocess.device_data(self.dataset, self.preprocessing, hparams.learning_rate.dtype)
        self.feed = ResidentFeed(parallel.place(data, self.devices), self.dataset.spec.roles, self._samplers, self._eval_batch)
        with self.clock("compile"):
            evaluation.evaluate(self._functions.evaluate, self.best, self.feed.nothing())
        names = [f"{d.platform}:{d.id} {d.device_kind}" for d in self.devices]
        for k, trial, _ in self._live():
            promise, extends = (resumed.rows[k][1]["log"], resumed.extends) if resumed else (None, None)
            trial.directory.begin(self.step, names, self.program.task, len(self.trials), promise, extends)
        self.report.start(self.step, self.steps, self.program.task.metrics)
        self._compiled = False

    def _place(self, tree: Any) -> Any:
        return parallel.place(tree, self.devices, len(self.trials))

    def _begin_from(self, weights: str) -> None:
        """Takes the place of the initial weights; what is drawn for a new head stays."""
        drawn = jax.device_get({"params": self.state.params, "batch_stats": self.state.batch_stats})
        loaded, new = init_from.start_each(weights, drawn, self.program.outputs.num_classes, len(self.trials))
        loaded = self._place(loaded)
        average = jax.tree.map(jnp.copy, loaded) if self.state.average else {}
        self.state = self.state._replace(**loaded, average=average)
        self.best = jax.tree.map(jnp.copy, loaded)
        self.report.note(f"weights of {weights}" + (f"; new: {', '.join(new)}" if new else ""))

    def _resume(self, first: Experiment) -> Resumed | None:
        """Resumes from a checkpoint, if there is one. Raises as `PackCheckpoints.resume`, and UsageError for other data."""
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
        """One step of every trial; waits for the one IN_FLIGHT steps before."""
        with self.clock("waiting_for_data"):
            data, index = self.feed(self.step)
        if not self._compiled:
            self.clock["start"] = time.time() - self._began - self.clock["compile"]
        with self.clock("train" if self._compiled else "compile"):
            self.state, sums = self._functions.train(self.state, index, self.hparams, data)
            self.step += 1
            self._in_flight.append((self.step, sums))
            self._settle(evaluation.IN_FLIGHT)
        if not self._compiled:
            self._compiled = True
            self._new_segment()

    def _settle(self, allowed: int) -> None:
        """Counts the sums of all but the last `allowed` steps, and logs those that end a window."""
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
        """Evaluates the validation split, and keeps the variables of each trial that has become better."""
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
            self.best = _keep(better, self.state.variables, self.best)
            ended = [k for k, _, progress in self._live() if progress.stopped_at == self.step]
            self._stopped |= {k: self._leaves(k) for k in ended} if len(self.trials) > 1 else {}
        self._new_segment()

    def _leaves(self, k: int, arrays: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
        """What a checkpoint holds of a trial; copies, since the next step uses up the state."""
        arrays = arrays or flatten({"state": self.state, "best": self.best})
        return {name: np.array(array[k]) for name, array in arrays.items()}

    def _new_segment(self) -> None:
        """Rates are measured from here on: a segment of steps with neither compilation nor evaluation in it."""
        self._segment = self.step, time.monotonic()

    def _totals(self, variables: Any, split: str) -> dict[str, np.ndarray]:
        return evaluation.evaluate(self._functions.evaluate, variables, self.feed.split(split))

    def save(self) -> None:
        """Starts to write a checkpoint of every trial; of one whose numbers are not finite, only the best variables."""
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
                    "data_crc": self._data_crc,
                    "experiment": trial.experiment.science(),
                    "preprocessing": self.preprocessing._asdict(),
                    "progress": dataclasses.asdict(progress),
                    "seconds": seconds,
                    "log": trial.directory.promise(),
                },
            )
        self._checkpoints.save(self.step, rows, self.over)
        self._saved = time.monotonic()
        self._new_segment()

    def wait(self) -> None:
        """Returns when the last checkpoint is on the disk. Raises StorageError where it could not be written."""
        self._checkpoints.saver.wait()

    def close(self) -> None:
        """Ends what runs beside the loop."""
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
        """By phase, in all processes so far; `wall` is everything, what was lost with a killed process excepted."""
        self.clock["wall"] = time.time() - self._began
        return {phase: round(self.clock[phase] + self._earlier[phase], 3) for phase in (*PHASES, "wall")}

    def _result(self, trial: Trial, progress: Progress, test: dict[str, Any] | None) -> dict[str, Any]:
        # What only fills the pack up repeats another.
        sharing = len({repr(t.experiment) for t in self.trials})
        parameters = sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(self.state.params))
        return result_of(trial.directory.restarts, progress, test, self.step, parameters, self._seconds(), sharing)


@jax.jit
def _keep(better: Array, new: Any, old: Any) -> Any:
    """`new` for the trials `[K]` that are better, else `old`."""
    return jax.tree.map(lambda n, o: jnp.where(better.reshape(-1, *[1] * (n.ndim - 1)), n, o), new, old)
