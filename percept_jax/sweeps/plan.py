"""The plan of a sweep: arms and seeds make trials, trials are grouped into programs, and programs are divided into packs.

These functions are pure: results and measurements are passed as arguments.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from percept_jax.experiment import Experiment
from percept_jax.metrics import as_number
from percept_jax.training.program import program_key


class ArmPlan(NamedTuple):
    """An arm as the user specified it.

    Attributes:
        name: its name in the table.
        experiment: all its settings except the seed.
        origins: flag -> where it was given.
        candidates: the experiments that tuning chooses from; none without tuning.
        tuned_at: tuned flag -> where its values were given.
        where: where the arm was given.
    """

    name: str
    experiment: Experiment
    origins: Mapping[str, str]
    candidates: Sequence[Experiment] = ()
    tuned_at: Mapping[str, str] = MappingProxyType({})
    where: str = ""


class TrialPlan(NamedTuple):
    """A trial of an arm.

    Attributes:
        id: its identity, which is also the name of its run directory.
        arm: the name of its arm.
        experiment: all its settings.
    """

    id: str
    arm: str
    experiment: Experiment


class Program(NamedTuple):
    """Trials that share one compiled step; `key` identifies it."""

    key: str
    trials: Sequence[TrialPlan]


class PackPlan(NamedTuple):
    """Trials that are stepped together.

    Attributes:
        width: the number of trials in the pack, including padding trials.
        trials: the ids of its trials, without padding trials.
    """

    width: int
    trials: Sequence[str]

    @property
    def name(self) -> str:
        """The name of its folder and its lock."""
        return hashlib.sha256(json.dumps([self.width, *self.trials]).encode()).hexdigest()[:12]


def trials(
    arms: Iterable[ArmPlan], seeds: Sequence[int], identity: Callable[[Experiment], str]
) -> dict[str, dict[int, TrialPlan]]:
    """Returns the trials of each arm, by the arm's name and by seed."""
    return {arm.name: {seed: _trial(arm.name, arm.experiment, seed, identity) for seed in seeds} for arm in arms}


def tuning(arms: Iterable[ArmPlan], seeds: Sequence[int], identity: Callable[[Experiment], str]) -> dict[str, list[TrialPlan]]:
    """Returns the trials that tune each arm's settings, by the arm's name.

    They use a seed that is not in the table: the highest free one, so that adding seeds to the table does not change the choice.
    """
    seed = next(seed for seed in range(2**32 - 1, 0, -1) if seed not in seeds)
    return {arm.name: [_trial(arm.name, candidate, seed, identity) for candidate in arm.candidates] for arm in arms}


def _trial(arm: str, experiment: Experiment, seed: int, identity: Callable[[Experiment], str]) -> TrialPlan:
    experiment = dataclasses.replace(experiment, seed=seed, fresh=False)
    return TrialPlan(identity(experiment), arm, experiment)


def distinct(arms: Sequence[ArmPlan]) -> list[ArmPlan]:
    """Returns the arms without those that repeat the first one, which a one-factor-at-a-time design produces."""
    first = arms[0].experiment.science()
    return [arms[0], *(arm for arm in arms[1:] if arm.experiment.science() != first)]


def programs(trials: Iterable[TrialPlan], steps: Callable[[Experiment], int]) -> list[Program]:
    """Returns trials grouped by program, each trial once; `steps` returns the number of steps of an experiment."""
    groups: dict[str, dict[str, TrialPlan]] = {}
    for trial in trials:
        groups.setdefault(program_key(trial.experiment, steps(trial.experiment)), {})[trial.id] = trial
    return [Program(key, list(members.values())) for key, members in groups.items()]


def packs(ids: Sequence[str], width: int, devices: int = 1) -> list[PackPlan]:
    """Returns packs of at most `width` trials.

    All packs have the same width, so that the program is compiled once, and the width is a multiple of the devices.
    """
    count = max(1, math.ceil(len(ids) / width))
    size = min(width, math.ceil(len(ids) / count / devices) * devices) if width > 1 else 1
    return [PackPlan(size, ids[first : first + size]) for first in range(0, len(ids), size)]


def best(candidates: Sequence[tuple[TrialPlan, Mapping[str, Any] | None]], metric: str, sign: int) -> TrialPlan | None:
    """Returns the candidate with the best validation, the first among equals; None if none finished without diverging.

    Args:
        candidates: trials with the content of their result.json.
        metric: the metric as split/name; for "test/accuracy" the choice is by validation/accuracy.
        sign: +1 if larger is better, else -1.
    """
    number = metric.partition("/")[2]
    done = [(as_number(r["validation"].get(number)), k, t) for k, (t, r) in enumerate(candidates) if r and r["status"] == "done"]
    known = [(sign * value, -k, t) for value, k, t in done if value is not None]
    return max(known, key=lambda row: row[:2])[2] if known else None
