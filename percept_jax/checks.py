"""Is a value what its declaration says? Used for the knobs of every run and for those of one model alike."""

import difflib
import math
from collections.abc import Iterable
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from percept_jax.errors import UsageError

_SAID = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    tuple[int, ...]: "whole numbers",
    tuple[float, ...]: "numbers",
}


def check_type(flag: str, value: Any, hint: Any) -> None:
    """Raises UsageError unless `value` is of the declared type: one of those in _SAID, a Literal, or a union of both."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise UsageError(unknown(value, get_args(hint)), flag)
    elif not _is(value, hint):
        raise UsageError(f"{value!r} is not {said(hint)}", flag)
    elif hint is float and not math.isfinite(value):
        raise UsageError(f"{value} is not a finite number", flag)


def said(hint: Any) -> str:
    """A declared type in a reader's words."""
    if is_union(hint):
        return " or ".join(said(kind) for kind in get_args(hint))
    if get_origin(hint) is Literal:
        return " or ".join(get_args(hint))
    return _SAID[hint]


def is_union(hint: Any) -> bool:
    """Whether a declared type is one of several, such as a number or a word."""
    return get_origin(hint) in (Union, UnionType)  # Python 3.11 has a type for each way of writing it


def _is(value: Any, hint: Any) -> bool:
    if is_union(hint):
        return any(_is(value, kind) for kind in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_is(v, get_args(hint)[0]) for v in value)
    if isinstance(value, bool):  # a bool is an int to Python, but not to a reader of flag files
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def check_within(flag: str, value: float, interval: str) -> None:
    """Raises UsageError unless `value` lies in an interval written as "[0, 1)", "(0, inf)" and the like."""
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    above = value > low if interval[0] == "(" else value >= low
    below = value < high if interval[-1] == ")" else value <= high
    if not (above and below):
        raise UsageError(f"{value} is outside {interval}", flag)


def unknown(value: Any, choices: Iterable[str]) -> str:
    """The message for a name that is none of `choices`, with the nearest one where there is one."""
    choices = list(choices)
    near = difflib.get_close_matches(str(value), choices, n=1)
    meant = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(choices)}" if len(choices) < 12 else "see --help"
    return f"unknown name {value!r}; {meant}"
