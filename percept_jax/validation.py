"""Checks values against their declarations, for the knobs of experiments and of models."""

import difflib
import math
import re
from collections.abc import Iterable
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from percept_jax.errors import UsageError

_KIND_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    tuple[int, ...]: "whole numbers",
    tuple[float, ...]: "numbers",
}

# Characters that a line of a flag file cannot hold: control characters, and what some readers take for a line break.
UNWRITABLE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_WHOLE = re.compile("[+-]?[0-9]+")
_REAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def check_type(flag: str, value: Any, hint: Any) -> None:
    """Raises UsageError unless `value` is of the declared type: one of those in _KIND_NAMES, a Literal, or a union of both."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise UsageError(unknown(value, get_args(hint)), flag)
    elif not _is(value, hint):
        raise UsageError(f"{value!r} is not {kind_name(hint)}", flag)
    elif hint is float and not math.isfinite(value):
        raise UsageError(f"{value} is not a finite number", flag)


def check_text(flag: str, text: str) -> None:
    """Raises UsageError unless a line of a flag file can hold the text unchanged."""
    if invalid := UNWRITABLE.search(text):
        problem = "is not UTF-8" if "\ud800" <= invalid[0] <= "\udfff" else f"contains U+{ord(invalid[0]):04X}"
        raise UsageError(f"{short(text)} {problem}, which a flag file cannot hold", flag)
    if text != text.strip() or text[:1] in ("'", '"'):
        raise UsageError(f"{short(text)} begins or ends with a space or a quote, which a flag file cannot hold", flag)


def number(text: str, kind: type) -> int | float:
    """Returns the number in a text: ASCII digits with at most one sign; `kind` is int or float.

    Raises UsageError for any other text, for an int beyond 64 bits, and for a float that is not finite.
    """
    shown = short(text)
    if kind is int:
        if not _WHOLE.fullmatch(text):
            raise UsageError(f"{shown} is not {kind_name(int)}{_suggestion(text)}")
        if len(text.lstrip("+-0")) > 19 or not -(2**63) <= int(text) < 2**63:
            raise UsageError(f"{shown} is too large for a whole number")
        return int(text)
    if re.fullmatch("[+-]?(nan|inf|infinity)", text, re.IGNORECASE):
        raise UsageError(f"{text} is not a finite number")
    if not _REAL.fullmatch(text):
        raise UsageError(f"{shown} is not {kind_name(float)}")
    value = float(text)
    if math.isinf(value) or (value == 0 and re.search("[1-9]", re.split("[eE]", text)[0])):
        raise UsageError(f"{shown} is too {'large' if value else 'small'} for a number")
    return value


def short(text: str) -> str:
    """Returns a text in quotes, truncated if it is long."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _suggestion(text: str) -> str:
    """Returns a hint how to write 1e5 or 7.0 as a whole number; "" if the text is not a whole number."""
    value = float(text) if _REAL.fullmatch(text) else math.nan
    return f"; write {int(value)}" if value.is_integer() and abs(value) < 2**53 else ""


def kind_name(hint: Any) -> str:
    """Returns the description of a declared type for messages."""
    if is_union(hint):
        return " or ".join(kind_name(kind) for kind in get_args(hint))
    if get_origin(hint) is Literal:
        return " or ".join(get_args(hint))
    return _KIND_NAMES[hint]


def is_union(hint: Any) -> bool:
    """Whether a declared type is a union, such as a number or a word."""
    # `Union[A, B]` and `A | B` have different origins in Python 3.11.
    return get_origin(hint) in (Union, UnionType)


def _is(value: Any, hint: Any) -> bool:
    if is_union(hint):
        return any(_is(value, kind) for kind in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_is(v, get_args(hint)[0]) for v in value)
    # A bool is an int to Python, but not to a reader of flag files.
    if isinstance(value, bool):
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
    """Returns the message for a name that is not in `choices`, with the nearest choice if there is one."""
    choices = list(choices)
    near = difflib.get_close_matches(str(value), choices, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(choices)}" if len(choices) < 12 else "see --help"
    return f"unknown name {value!r}; {hint}"
