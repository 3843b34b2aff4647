"""What a command line asks for, once it has been understood."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from percept_jax.experiment import Experiment
from percept_jax.sweeps.plan import Setup
from percept_jax.sweeps.spec import Spec


class Request(NamedTuple):
    """A command line that has been understood.

    Attributes:
        words: its positional arguments, flag files taken out.
        experiment: not yet validated.
        options: what is asked of a command, and is no part of an experiment.
        origins: flag -> "file:line" or "command line", for those that were given.
        file: the flag file, where there is one.
        name: of the experiment: the flag file's; empty without one.
    """

    words: list[str]
    experiment: Experiment
    options: dict[str, Any]
    origins: dict[str, str]
    file: str
    name: str


class SweepRequest(NamedTuple):
    """A command line that asks for a sweep, once it has been understood.

    Attributes:
        spec: what its file says.
        setups: the arms of it as experiments, not yet validated.
        options, origins: as in Request; the origins of options alone.
        file: the sweep file, or the flag file of a sweep that the command line describes.
        name: of the sweep: the file's stem, and what tells it from others of the file.
        text: the file as given, with what the command line adds.
        arguments: the command line.
    """

    spec: Spec
    setups: Sequence[Setup]
    options: dict[str, Any]
    origins: dict[str, str]
    file: str
    name: str
    text: str
    arguments: Sequence[str]
