"""SweepRequest: a sweep as a command line describes it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from percept_jax.sweeps.plan import ArmPlan
from percept_jax.sweeps.spec import Spec


class SweepRequest(NamedTuple):
    """A command line that asks for a sweep.

    Attributes:
        spec: the content of its file.
        arms: its arms as experiments, not yet validated.
        options: options of the command, which are not part of an experiment.
        origins: option -> where it was given, "file:line" or "command line".
        file: the sweep file, or the flag file of a sweep that the command line describes.
        name: the name of the sweep: the file's stem, and a suffix that distinguishes it from other sweeps of the file.
        text: the text of the file, after a comment with the additions of the command line.
        arguments: the command line.
    """

    spec: Spec
    arms: Sequence[ArmPlan]
    options: dict[str, Any]
    origins: dict[str, str]
    file: str
    name: str
    text: str
    arguments: Sequence[str]
