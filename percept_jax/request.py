"""What a command line asks for, once it has been understood."""

from typing import Any, NamedTuple

from percept_jax.experiment import Experiment


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
