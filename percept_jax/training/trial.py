"""A trial: its experiment, its run directory, its progress and its result."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from percept_jax.experiment import Experiment
from percept_jax.tasks.base import Task
from percept_jax.training.run_dir import RunDir


class Trial(NamedTuple):
    """One training run: its experiment and its run directory. `run_dir` is None for padding trials."""

    experiment: Experiment
    run_dir: RunDir | None

    @property
    def directory(self) -> RunDir:
        """The run directory of a trial that is not padding."""
        assert self.run_dir is not None
        return self.run_dir


@dataclasses.dataclass
class Progress:
    """Host-side progress of a trial: everything that is not in the train state. A checkpoint holds it too.

    Attributes:
        sums: the sums of the training steps since the last line of metrics, by name.
        best: the step and metrics of the best validation, the first among equals.
        diverged_at: the first step whose loss was not finite.
        stopped_at: the step at which --stop_after ended the trial.
    """

    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    best: dict[str, Any] | None = None
    diverged_at: int | None = None
    stopped_at: int | None = None

    @property
    def ended(self) -> bool:
        """Whether the trial has diverged or stopped, so that its state no longer matters."""
        return self.diverged_at is not None or self.stopped_at is not None

    def add(self, sums: Mapping[str, Any]) -> None:
        """Adds the sums of a step, by name."""
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)

    def window(self, rate: float | None, task: Task) -> dict[str, Any]:
        """Returns the training metrics since the last line of metrics, and resets the sums.

        Args:
            rate: examples per second; None if it was not measured.
            task: the task that computes the metrics.
        """
        sums = self.sums | {"positions": max(1, self.sums["positions"])}
        record = {**task.measure(sums, training=True), "examples": int(sums["examples"])}
        if rate is not None:
            record["examples_per_second"] = round(rate, 1)
        self.sums = {}
        return record


class Stopwatch(dict[str, float]):
    """Seconds by phase."""

    def __missing__(self, phase: str) -> float:
        return 0.0

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Adds the seconds that the block takes to `phase`."""
        began = time.monotonic()
        try:
            yield
        finally:
            self[phase] += time.monotonic() - began


def result_of(
    restarts: Sequence[Mapping[str, Any]],
    progress: Progress,
    test: dict[str, Any] | None,
    step: int,
    parameters: int,
    seconds: dict[str, float],
    sharing: int,
) -> dict[str, Any]:
    """Returns the content of a trial's result.json.

    Args:
        restarts: the restarts of the run, as provenance.json has them.
        progress: the progress of the trial at its end.
        test: the metrics of the test split; None if the trial diverged.
        step: the last step of its pack.
        parameters: the number of parameters of the model.
        seconds: the seconds of the pack by phase; the phase "wall" is the total.
        sharing: the number of trials that share these seconds.
    """
    best, redone = progress.best or {}, sum(restart["redone_steps"] for restart in restarts)
    wall = seconds["wall"] + redone * seconds["train"] / max(1, step)
    return {
        "status": "done" if test else "diverged",
        "steps": progress.diverged_at or progress.stopped_at or step,
        "parameters": parameters,
        "best_step": best.get("step"),
        "validation": {name: value for name, value in best.items() if name != "step"} or None,
        "test": test,
        "seconds": {phase: round(value / sharing, 3) for phase, value in seconds.items() if phase != "wall"},
        "goodput": round(seconds["train"] / wall, 4),
        "restarts": len(restarts),
        "redone_steps": redone,
    }
