"""The one training loop. It advances a pack: trials that share one program, steps and cadence; a single run is a pack of one."""

import collections
import contextlib
import csv
import dataclasses
import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from percept_jax import files
from percept_jax.data import inputs
from percept_jax.data.order import Order
from percept_jax.data.sources import Dataset
from percept_jax.errors import Interrupted, UsageError
from percept_jax.experiment import Experiment, stack_hparams
from percept_jax.training import checkpoint, evaluation, parallel
from percept_jax.training.progress import Reporter
from percept_jax.training.run_dir import RunDir
from percept_jax.training.step import Data, EvalSums, make_program

PHASES = ("start", "compile", "train", "eval", "waiting_for_data")


class Trial(NamedTuple):
    """One training run: what is run, and where its results go."""

    experiment: Experiment
    run_dir: RunDir


@dataclasses.dataclass
class Progress:
    """What a trial has come to beside its state. It is saved with it, so that a resumed run logs the same numbers.

    Attributes:
        loss, correct, examples: sums over the training examples since the last line of metrics.
        best: metrics of the best validation: the highest accuracy, among equals the lowest loss, among those the first.
        diverged_at: the first step whose loss was not finite.
    """

    loss: float = 0.0
    correct: int = 0
    examples: int = 0
    best: dict[str, Any] | None = None
    diverged_at: int | None = None


class Stopwatch(collections.Counter):
    """Seconds by phase."""

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Adds what the block takes to `phase`."""
        began = time.monotonic()
        try:
            yield
        finally:
            self[phase] += time.monotonic() - began


def choose_devices(experiment: Experiment) -> list[jax.Device]:
    """The devices of a run. Raises UsageError where there are fewer than asked for, or the batch cannot be split over them."""
    devices = jax.local_devices()
    if experiment.devices > len(devices):
        raise UsageError(f"{experiment.devices} asked for, {len(devices)} here ({devices[0].platform})", "devices")
    devices = devices[: experiment.devices or None]
    if experiment.batch_size % len(devices):
        raise UsageError(
            f"{experiment.batch_size} examples cannot be split evenly over {len(devices)} devices (see --devices)", "batch_size"
        )
    return devices


def train_pack(
    trials: Sequence[Trial],
    dataset: Dataset,
    report: Reporter,
    interrupted: Callable[[], int | None] = lambda: None,
    began: float | None = None,
) -> list[dict[str, Any]]:
    """Trains trials that differ in traced values only, or finishes what was begun of them; their results.

    Args:
        trials: experiments with the run directories that they hold.
        dataset: already resized to what the model wants.
        report: what is told to a person.
        interrupted: the number of a signal that asks to stop, once one has come.
        began: `time.time()` at which the command was given.

    Raises:
        Interrupted: when `interrupted` says so; all is saved.
        StorageError, UsageError: see the run directory and `choose_devices`.
    """
    with jax.enable_x64(trials[0].experiment.dtype == "float64"):
        pack = Pack(trials, dataset, report, began or time.time())
        try:
            pack.start()
            while pack.step < pack.steps and not pack.all_diverged:
                pack.advance()
                last, signal = pack.step == pack.steps, interrupted()
                if last or pack.step % pack.eval_every == 0:
                    pack.validate()
                if last or signal or pack.step % pack.checkpoint_every == 0:
                    pack.save()
                if signal and not last:
                    pack.saver.wait()
                    raise Interrupted(signal, pack.step)
            return pack.finish()
        finally:
            pack.saver.close()
            report.close()


class Pack:
    """Trials on their way: the state `[K, ...]` on the devices, their progress on the host, and the programs between."""

    def __init__(self, trials: Sequence[Trial], dataset: Dataset, report: Reporter, began: float):
        first = trials[0].experiment
        self.trials, self.dataset, self.report, self._began = trials, dataset, report, began
        self.input = inputs.describe(first.normalize, dataset)
        self.train_index = dataset.indices("train")
        self.steps = first.total_steps(len(self.train_index))
        self.epoch_steps = len(self.train_index) / first.batch_size
        self.eval_every = first.eval_every or max(1, round(self.epoch_steps))
        self.checkpoint_every = first.checkpoint_every or self.eval_every
        self.orders = [Order(t.experiment.seed, len(self.train_index), first.batch_size) for t in trials]
        self.devices = choose_devices(first)
        self.program = make_program(first, len(dataset.info.classes), parallel.axis_name(self.devices))
        self._train = parallel.compile_train(self.program, self.devices, len(trials))
        self._evaluate = parallel.compile_eval(self.program, self.devices, len(trials))
        self._eval_batch = evaluation.batch_size(dataset, len(self.devices))
        self.saver = checkpoint.Saver()
        self.clock = Stopwatch()
        self._in_flight: collections.deque = collections.deque()

    @property
    def all_diverged(self) -> bool:
        """Whether no trial is left to train."""
        return all(p.diverged_at is not None for p in self.progress)

    def start(self) -> None:
        """Data and state on the devices: the state of the newest checkpoint, or else of step 0."""
        hparams = stack_hparams([t.experiment for t in self.trials], self.steps)
        init = parallel.compile_init(self.program, len(self.trials), self.dataset.images.shape[1:])
        with self.clock("compile"):
            self.state = parallel.place(init(hparams), self.devices)
        self.best = jax.tree.map(jnp.copy, self.state.variables)  # a copy, since the first step uses up the state
        self.step, self.progress = 0, [Progress() for _ in self.trials]
        self._restore()
        self.hparams = parallel.place(hparams, self.devices)
        self.data = parallel.place(device_data(self.dataset, self.input, hparams.learning_rate.dtype), self.devices)
        with self.clock("compile"):  # on no examples
            evaluation.evaluate(self._evaluate, self.best, self.train_index[:0], self._eval_batch, self.data)
        for trial in self.trials:
            trial.run_dir.begin(self.step, [f"{d.platform}:{d.id} {d.device_kind}" for d in self.devices])
        self.report.start(self.step, self.steps)
        self._compiled = False

    def _restore(self) -> None:
        """Goes on from the newest step of which every trial has a checkpoint, if there is one."""
        saved = [checkpoint.newest(t.run_dir.checkpoints) for t in self.trials]
        if not all(saved) or len({header["step"] for _, header in saved}) > 1:
            return
        tree = {"state": self.state, "best": self.best}
        template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), tree)
        trees = [checkpoint.unflatten(arrays, template) for arrays, _ in saved]
        tree = parallel.place(jax.tree.map(lambda *leaves: np.stack(leaves), *trees), self.devices)
        self.state, self.best = tree["state"], tree["best"]
        self.step = saved[0][1]["step"]
        self.progress = [Progress(**header["progress"]) for _, header in saved]
        self.clock.update(saved[0][1]["seconds"])
        self.report.note(f"resuming at step {self.step}")

    def advance(self) -> None:
        """One step of every trial; waits for the one IN_FLIGHT steps before."""
        with self.clock("waiting_for_data"):
            index = self.train_index[np.stack([order(self.step) for order in self.orders])]
        if not self._compiled:
            self.clock["start"] += time.time() - self._began - self.clock["compile"]
        with self.clock("train" if self._compiled else "compile"):
            self.state, sums = self._train(self.state, index, self.hparams, self.data)
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
            for k, (trial, progress) in enumerate(zip(self.trials, self.progress, strict=True)):
                if progress.diverged_at is not None:
                    continue
                progress.loss += float(sums.loss[k])
                progress.correct += int(sums.correct[k])
                progress.examples += int(sums.examples[k])
                if not math.isfinite(progress.loss):
                    progress.diverged_at = step
                elif step == self.steps or step % trial.experiment.log_every == 0:
                    self._log_train(trial, progress, step)

    def _log_train(self, trial: Trial, progress: Progress, step: int) -> None:
        examples, (since, began) = progress.examples, self._segment
        record = {"loss": progress.loss / examples, "accuracy": progress.correct / examples, "examples": examples}
        if step > since:
            rate = (step - since) * trial.experiment.batch_size / (time.monotonic() - began)
            record["examples_per_second"] = round(rate, 1)
        self._log(trial, "train", step, record)
        progress.loss, progress.correct, progress.examples = 0.0, 0, 0

    def _log(self, trial: Trial, split: str, step: int, numbers: dict[str, Any]) -> None:
        record = {"step": step, "epoch": step / self.epoch_steps, "split": split, **numbers}
        trial.run_dir.log(record)
        self.report.log(record)

    def validate(self) -> None:
        """Evaluates the validation split, and keeps the variables of each trial that has become better."""
        with self.clock("train"):
            self._settle(0)
        with self.clock("eval"):
            sums = self._sums(self.state.variables, "validation")
            better = np.zeros(len(self.trials), bool)
            for k, (trial, progress) in enumerate(zip(self.trials, self.progress, strict=True)):
                numbers = evaluation.metrics(sums, k)
                if progress.diverged_at is None and not math.isfinite(numbers["loss"]):
                    progress.diverged_at = self.step
                if progress.diverged_at is None:
                    self._log(trial, "validation", self.step, numbers)
                    better[k] = progress.best is None or _rank(numbers) > _rank(progress.best)
                    if better[k]:
                        progress.best = {"step": self.step, **numbers}
            self.best = _keep(better, self.state.variables, self.best)
        self._new_segment()

    def _new_segment(self) -> None:
        """Rates are measured from here on: a segment of steps with neither compilation nor evaluation in it."""
        self._segment = self.step, time.monotonic()

    def _sums(self, variables: Any, split: str) -> EvalSums:
        return evaluation.evaluate(self._evaluate, variables, self.dataset.indices(split), self._eval_batch, self.data)

    def save(self) -> None:
        """Starts to write a checkpoint of every trial whose numbers are finite."""
        with self.clock("train"):
            self._settle(0)
        arrays = checkpoint.flatten({"state": self.state, "best": self.best})
        seconds = dict(self.clock, wall=self.clock["wall"] + time.time() - self._began)
        rows = []
        for k, (trial, progress) in enumerate(zip(self.trials, self.progress, strict=True)):
            leaves = {name: np.array(array[k]) for name, array in arrays.items()}  # copies: the next step uses up the state
            if all(np.isfinite(leaf).all() for leaf in leaves.values()):
                header = {
                    "step": self.step,
                    "identity": trial.run_dir.identity,
                    "experiment": trial.experiment.science(),
                    "input": self.input._asdict(),
                    "progress": dataclasses.asdict(progress),
                    "seconds": seconds,
                }
                rows.append((trial.run_dir.checkpoints, leaves, header))
        self.saver.save(self.step, rows)
        self._new_segment()

    def finish(self) -> list[dict[str, Any]]:
        """Evaluates the best variables on the test split, once, and writes what each trial came to."""
        self._settle(0)
        with self.clock("eval"):
            sums = self._sums(self.best, "test")
        self.saver.wait()
        results = []
        for k, (trial, progress) in enumerate(zip(self.trials, self.progress, strict=True)):
            test = None
            if progress.diverged_at is None:
                test = evaluation.metrics(sums, k)
                self._log(trial, "test", self.step, test)
                write_confusion(trial.run_dir.path, sums.confusion[k], self.input.classes)
            result = self._result(trial, progress, test)
            trial.run_dir.write_result(result)
            results.append(result)
        return results

    def _result(self, trial: Trial, progress: Progress, test: dict[str, Any] | None) -> dict[str, Any]:
        restarts, best = trial.run_dir.restarts, progress.best or {}
        redone, wall = sum(r["redone_steps"] for r in restarts), self.clock["wall"] + time.time() - self._began
        train = self.clock["train"]
        return {
            "status": "done" if test else "diverged",
            "steps": progress.diverged_at or self.step,
            "parameters": sum(leaf[0].size for leaf in jax.tree.leaves(self.state.params)),
            "best_step": best.get("step"),
            "validation": {name: value for name, value in best.items() if name != "step"} or None,
            "test": test,
            "seconds": {phase: round(self.clock[phase], 3) for phase in PHASES},
            "goodput": round(train / (wall + redone * train / self.step), 4),
            "restarts": len(restarts),
            "redone_steps": redone,
        }


def device_data(dataset: Dataset, input: inputs.Input, dtype: np.dtype) -> Data:
    """What the steps gather from, as NumPy arrays."""
    return Data(dataset.images, dataset.labels, np.array(input.mean, dtype), np.array(input.scale, dtype))


def write_confusion(path: Path, confusion: np.ndarray, classes: Sequence[str]) -> None:
    """confusion.csv: a row a true class, a column a predicted one, with their names."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["true \\ predicted", *classes])
    table.writerows([name, *row] for name, row in zip(classes, confusion.tolist(), strict=True))
    files.write_bytes(path / "confusion.csv", text.getvalue().encode())


@jax.jit
def _keep(better: Array, new: Any, old: Any) -> Any:
    """`new` for the trials `[K]` that are better, else `old`."""
    return jax.tree.map(lambda n, o: jnp.where(better.reshape(-1, *[1] * (n.ndim - 1)), n, o), new, old)


def _rank(numbers: dict[str, Any]) -> tuple[float, float]:
    return numbers["accuracy"], -numbers["loss"]
