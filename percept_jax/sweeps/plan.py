"""What a sweep is going to train: arms over seeds, trials grouped into programs, programs divided into packs.

Pure: what is on the disk, and what was measured, comes in as arguments.
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
    """An arm as it was asked for.

    Attributes:
        name: its name in the table.
        experiment: all its settings except the seed.
        origins: flag -> where it was given.
        candidates: the experiments that tuning chooses from; none without tuning.
        tuned_at: tuned flag -> where its values were given.
        where: where the arm was asked for.
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
    """Trials that share one compiled step; `key` names it."""

    key: str
    trials: Sequence[TrialPlan]


class PackPlan(NamedTuple):
    """Trials that are stepped together.

    Attributes:
        width: how many trials the pack has, padding trials included.
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
    """Returns the trials that choose each arm's settings, by the arm's name.

    They have a seed that is not in the table. It is the highest free one, so that more seeds in the table do not change what is
    chosen.
    """
    seed = next(seed for seed in range(2**32 - 1, 0, -1) if seed not in seeds)
    return {arm.name: [_trial(arm.name, candidate, seed, identity) for candidate in arm.candidates] for arm in arms}


def _trial(arm: str, experiment: Experiment, seed: int, identity: Callable[[Experiment], str]) -> TrialPlan:
    experiment = dataclasses.replace(experiment, seed=seed, fresh=False)
    return TrialPlan(identity(experiment), arm, experiment)


def distinct(arms: Sequence[ArmPlan]) -> list[ArmPlan]:
    """Returns the arms without those that repeat the first one, as a one-factor-at-a-time design makes them."""
    first = arms[0].experiment.science()
    return [arms[0], *(arm for arm in arms[1:] if arm.experiment.science() != first)]


def programs(trials: Iterable[TrialPlan], steps: Callable[[Experiment], int]) -> list[Program]:
    """Returns trials grouped by program, each trial once; `steps` is the number of steps of an experiment."""
    groups: dict[str, dict[str, TrialPlan]] = {}
    for trial in trials:
        groups.setdefault(program_key(trial.experiment, steps(trial.experiment)), {})[trial.id] = trial
    return [Program(key, list(members.values())) for key, members in groups.items()]


def packs(ids: Sequence[str], width: int, devices: int = 1) -> list[PackPlan]:
    """Returns packs of at most `width` trials.

    All have the same width, so that one compilation serves them all, and the devices can share it.
    """
    count = max(1, math.ceil(len(ids) / width))
    size = min(width, math.ceil(len(ids) / count / devices) * devices) if width > 1 else 1
    return [PackPlan(size, ids[first : first + size]) for first in range(0, len(ids), size)]


def best(candidates: Sequence[tuple[TrialPlan, Mapping[str, Any] | None]], metric: str, sign: int) -> TrialPlan | None:
    """Returns the candidate that validated best, the first among equals; None where none finished without diverging.

    Args:
        candidates: trials with the content of their result.json.
        metric: as split/name; "test/accuracy" is chosen by validation/accuracy.
        sign: +1 where larger is better, else -1.
    """
    number = metric.partition("/")[2]
    done = [(as_number(r["validation"].get(number)), k, t) for k, (t, r) in enumerate(candidates) if r and r["status"] == "done"]
    known = [(sign * value, -k, t) for value, k, t in done if value is not None]
    return max(known, key=lambda row: row[:2])[2] if known else None
