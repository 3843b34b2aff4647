"""A trial: what is run, where its results go, and what it has come to."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from percept_jax.experiment import Experiment
from percept_jax.tasks.base import Task
from percept_jax.training.run_dir import RunDir


class Trial(NamedTuple):
    """One training run: what is run, and where its results go; nowhere if it only fills a pack up."""

    experiment: Experiment
    run_dir: RunDir | None

    @property
    def directory(self) -> RunDir:
        """The run directory of a trial that does more than fill its pack up."""
        assert self.run_dir is not None
        return self.run_dir


@dataclasses.dataclass
class Progress:
    """What a trial has come to beside its state. It is saved with it, so that a resumed run logs the same numbers.

    Attributes:
        sums: what the training steps since the last line of metrics have summed up, by name.
        best: metrics of the best validation, among equals the first.
        diverged_at: the first step whose loss was not finite.
        stopped_at: the step at which --stop_after ended it.
    """

    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    best: dict[str, Any] | None = None
    diverged_at: int | None = None
    stopped_at: int | None = None

    @property
    def ended(self) -> bool:
        """Whether what its state comes to does not matter any more."""
        return self.diverged_at is not None or self.stopped_at is not None

    def add(self, sums: Mapping[str, Any]) -> None:
        """Adds the sums of a step, by name."""
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)

    def window(self, rate: float | None, task: Task) -> dict[str, Any]:
        """Returns a line of training metrics, of what was summed up since the last one. The next window begins.

        Args:
            rate: examples a second, where it was measured.
            task: whose metrics they are.
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
        """Adds what the block takes to `phase`."""
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
    """What result.json says of a trial.

    Args:
        restarts: of the run, as provenance.json has them.
        progress: at its end.
        test: metrics of the test split; None where the trial diverged.
        step: the last one of its pack.
        parameters: of the model.
        seconds: by phase, of the pack; the phase "wall" is everything.
        sharing: trials of the pack that share them.
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
