"""What is asked of a sweep."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from percept_jax.sweeps.plan import Setup
from percept_jax.sweeps.spec import Spec


class SweepRequest(NamedTuple):
    """A command line that asks for a sweep.

    Attributes:
        spec: what its file says.
        setups: the arms of it as experiments, not yet validated.
        options: what is asked of the command, and is no part of an experiment.
        origins: of the options of a sweep: "file:line" or "command line", for those that were given.
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
