"""What a sweep is going to train: arms over seeds, trials grouped into programs, programs cut into packs.

Pure: what is on the disk, and what was measured, comes in as arguments.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from percept_jax.experiment import KNOBS, Experiment
from percept_jax.metrics import as_number


class Setup(NamedTuple):
    """An arm as it was asked for.

    Attributes:
        name: as the table shows it.
        experiment: all but the seed.
        origins: flag -> where it was given.
        candidates: the experiments that tuning chooses from; none without tuning.
        tuned_at: tuned flag -> where its values were given.
        where: it was asked for.
    """

    name: str
    experiment: Experiment
    origins: Mapping[str, str]
    candidates: Sequence[Experiment] = ()
    tuned_at: Mapping[str, str] = MappingProxyType({})
    where: str = ""


class Planned(NamedTuple):
    """A trial to be: `id` is its identity, and the name of its run directory."""

    id: str
    arm: str
    experiment: Experiment


class Program(NamedTuple):
    """Trials that one compiled step serves; `key` names it."""

    key: str
    trials: Sequence[Planned]


def trials(setups: Iterable[Setup], seeds: Sequence[int], identity: Callable[[Experiment], str]) -> dict[str, dict[int, Planned]]:
    """The trials of each arm, by its name and by seed."""
    return {setup.name: {seed: _planned(setup.name, setup.experiment, seed, identity) for seed in seeds} for setup in setups}


def tuning(setups: Iterable[Setup], seeds: Sequence[int], identity: Callable[[Experiment], str]) -> dict[str, list[Planned]]:
    """The trials that choose each arm's setting, by its name: on a seed that is not among those of the table.

    It is a far one, so that more seeds in the table do not change what is chosen.
    """
    seed = next(seed for seed in range(2**32 - 1, 0, -1) if seed not in seeds)
    return {setup.name: [_planned(setup.name, e, seed, identity) for e in setup.candidates] for setup in setups}


def _planned(arm: str, experiment: Experiment, seed: int, identity: Callable[[Experiment], str]) -> Planned:
    experiment = dataclasses.replace(experiment, seed=seed, fresh=False)
    return Planned(identity(experiment), arm, experiment)


def distinct(setups: Sequence[Setup]) -> list[Setup]:
    """Without the arms that are the first one under another name, as one factor at a time makes them."""
    first = setups[0].experiment.science()
    return [setups[0], *(setup for setup in setups[1:] if setup.experiment.science() != first)]


def programs(planned: Iterable[Planned], steps: Callable[[Experiment], int]) -> list[Program]:
    """Trials grouped by all that is compiled or paces the loop: every value that is not traced, and the number of steps."""
    groups: dict[str, dict[str, Planned]] = {}
    for trial in planned:
        groups.setdefault(program_key(trial.experiment, steps(trial.experiment)), {})[trial.id] = trial
    return [Program(key, list(members.values())) for key, members in groups.items()]


def program_key(experiment: Experiment, steps: int) -> str:
    """12 hexadecimal digits that name a program among those of a sweep."""
    fixed = {name: getattr(experiment, name) for name, knob in KNOBS.items() if knob.role != "traced" and name != "run_dir"}
    text = json.dumps([fixed, sorted(experiment.knobs.items()), steps], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Cut(NamedTuple):
    """A pack to be: the trials in it, and how many it takes; what is missing is filled up."""

    width: int
    trials: Sequence[str]

    @property
    def name(self) -> str:
        """Of its folder and its lock."""
        return hashlib.sha256(json.dumps([self.width, *self.trials]).encode()).hexdigest()[:12]


def cut(ids: Sequence[str], width: int, devices: int = 1) -> list[Cut]:
    """Packs of at most `width` trials, of one size, which the devices can share: one compilation serves all."""
    count = max(1, math.ceil(len(ids) / width))
    size = min(width, math.ceil(len(ids) / count / devices) * devices) if width > 1 else 1
    return [Cut(size, ids[first : first + size]) for first in range(0, len(ids), size)]


def best(candidates: Sequence[tuple[Planned, Mapping[str, Any] | None]], metric: str, sign: int) -> Planned | None:
    """The candidate that validated best, the first among equals; None where none was finished well.

    Args:
        candidates: with what their result.json holds.
        metric: "test/accuracy" is chosen on validation/accuracy.
        sign: +1 where larger is better.
    """
    number = metric.partition("/")[2]
    done = [(as_number(r["validation"].get(number)), k, t) for k, (t, r) in enumerate(candidates) if r and r["status"] == "done"]
    known = [(sign * value, -k, t) for value, k, t in done if value is not None]
    return max(known, key=lambda row: row[:2])[2] if known else None
