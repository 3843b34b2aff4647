"""Is a value what its declaration says? Used for the knobs of every run and for those of one model alike."""

import difflib
import math
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

from percept_jax.errors import UsageError

_SAID = {int: "a whole number", float: "a number", bool: "true or false", str: "text", tuple[int, ...]: "whole numbers"}


def check_type(flag: str, value: Any, hint: Any) -> None:
    """Raises UsageError unless `value` is of the declared type: int, float, bool, str, tuple[int, ...] or a Literal."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise UsageError(unknown(value, get_args(hint)), flag)
    elif not _is(value, hint):
        raise UsageError(f"{value!r} is not {said(hint)}", flag)
    elif hint is float and not math.isfinite(value):
        raise UsageError(f"{value} is not a finite number", flag)


def said(hint: Any) -> str:
    """A declared type in a reader's words."""
    return _SAID.get(hint, "text")


def _is(value: Any, hint: Any) -> bool:
    if hint == tuple[int, ...]:
        return isinstance(value, tuple) and all(_is(v, int) for v in value)
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
