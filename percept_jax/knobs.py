"""Knobs: fields of an experiment, each declared beside the code that reads it, with its type, default, help, role and range.

A group of knobs is a frozen dataclass; `Experiment` is composed of all groups. A knob of only one model is a field of its Flax
module instead, see `percept_jax.models`.
"""

import dataclasses
from typing import Any, Literal, NamedTuple, TypeVar

# `static` values change the compiled program or the choice of the best step; `traced` values are arguments of the program;
# `infra` values decide where and how a run happens. The first two kinds make up the run's identity.
Role = Literal["static", "traced", "infra"]

Group = TypeVar("Group")


class Knob(NamedTuple):
    """The declaration of a flag, apart from its type and default; `within` is an interval such as "[0, 1)"."""

    help: str
    role: Role
    group: str
    within: str = ""


def knob(default: Any, role: Role, group: str, help: str, within: str = "") -> Any:
    """Returns a dataclass field for a flag; `group` is its heading in --help."""
    return dataclasses.field(default=default, metadata={"knob": Knob(help, role, group, within)})


def names(group: type) -> list[str]:
    """Returns the names of a group's knobs, in the order of their declaration."""
    return [field.name for field in dataclasses.fields(group)]


def part(group: type[Group], experiment: Any) -> Group:
    """Returns an experiment's values for one group of knobs."""
    return group(**{name: getattr(experiment, name) for name in names(group)})
