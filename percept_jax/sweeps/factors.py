"""Factors: flags with several values in braces, and the combinations of their values.

The forms are `{0.03,0.1}`, a list; `{512|256,256}`, a list whose values contain commas; `{1..5}`, whole numbers; `{0..0.5:6}` and
`{log:1e-4..1e-1:7}`, a number of values spaced evenly on a linear or logarithmic scale; `{0.1..0.9}` and `{log:1e-3..1}`,
continuous ranges, for Halton points only.
"""

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple

from percept_jax import validation
from percept_jax.errors import UsageError
from percept_jax.settings import Setting

# The most trials of a sweep.
MOST = 10_000


class Factor(NamedTuple):
    """A flag with several values.

    Attributes:
        name: the name of the flag.
        origin: where its values were given.
        size: the number of its values; None for a continuous range.
        text: returns the value at an index, as a flag file spells it; for a continuous range, at a position from 0 to 1.
    """

    name: str
    origin: str
    size: int | None
    text: Callable[[float], str]

    @property
    def length(self) -> int:
        """The number of values. The factor must not be a continuous range."""
        assert self.size is not None
        return self.size


# Factors whose values change together; they have the same size.
Axis = tuple[Factor, ...]


def read(settings: Iterable[Setting]) -> dict[str, Factor]:
    """Returns the flags whose last setting has several values, in order. Raises UsageError if values are malformed."""
    found: dict[str, Factor] = {}
    for name, text, origin in settings:
        found.pop(name, None)
        if text and re.search("[{}]", text):
            found[name] = values(name, text, name, origin)
    return found


def values(name: str, text: str, flag: str, origin: str) -> Factor:
    """Returns the factor that a text with braces describes. Raises UsageError, naming `flag`, if it is malformed."""
    try:
        match = re.fullmatch(r"([^{}]*)\{([^{}]*)\}([^{}]*)", text)
        if not match:
            two = re.fullmatch(r"([^{}]*\{[^{}]*\}){2,}[^{}]*", text)
            raise UsageError(f"{text!r} has {'two brace groups, but may have only one' if two else 'unbalanced braces'}")
        before, inside, behind = match.groups()
        if not inside.strip():
            raise UsageError("no value between the braces")
        separator = "|" if "|" in inside else ","
        if separator not in inside and (".." in inside or inside.startswith("log:")):
            count, spell = _range(inside)
        else:
            words = [word.strip(" \t") for word in inside.split(separator)]
            if "" in words:
                raise UsageError(f"an empty value in {{{inside}}}")
            count, spell = len(words), words.__getitem__
        # A sweep with more values is refused when its trials are counted.
        if count and count <= MOST:
            _check_values([before + spell(i) + behind for i in range(count)])
    except UsageError as error:
        error.flag, error.where = flag, origin
        raise
    return Factor(name, origin, count, lambda at: before + spell(at) + behind)


def _check_values(texts: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for text in texts:
        try:
            same = repr(float(text))
        except ValueError:
            same = text
        if same in seen:
            raise UsageError(f"the same value twice: {seen[same]}" + (f" and {text}" if text != seen[same] else ""))
        seen[same] = text


def _range(inside: str) -> tuple[int | None, Callable[[float], str]]:
    """Returns the number of values of `low..high` or `low..high:count`, with or without `log:`, and their texts by index."""
    match = re.fullmatch(r"(log:)?(.*?)\.\.(.*?)(:(.*))?", inside)
    if not match:
        raise UsageError(f"{{{inside}}} is not a range; write {{log:LOW..HIGH:COUNT}}")
    log, first, last, counted, count = match.groups()
    if not log and not counted and all(re.fullmatch("[+-]?[0-9]{1,18}", end) for end in (first, last)):
        start, stop = int(first), int(last)
        return abs(stop - start) + 1, lambda i: str(start + (i if start < stop else -i))
    ends = low, high = _number(first), _number(last)
    if log and min(ends) <= 0:
        raise UsageError(f"the ends of a log range must be above 0, not {first if low <= 0 else last}")

    def between(part: Decimal | float, whole: int) -> str:
        a, b = (low.log10(), high.log10()) if log else (low, high)
        value = a + (b - a) * Decimal(part) / whole
        rounded = Decimal(f"{10**value if log else value:.3e}")
        # Clip, because rounding must not leave the range: 0.99999 must not become 1.
        return _spelled(min(max(rounded, min(ends)), max(ends)))

    if not counted:
        _check_values([_spelled(end) for end in ends])
        return None, lambda share: between(Decimal(float(share)), 1)
    steps = whole(count, 2) - 1
    return steps + 1, lambda i: _spelled(ends[i > 0]) if i in (0, steps) else between(i, steps)


def _number(text: str) -> Decimal:
    # In decimal arithmetic the number halfway from -0.1 to 0.1 is 0, not 1e-17.
    return Decimal(repr(validation.number(text, float)))


def _spelled(number: Decimal) -> str:
    return f"{number.normalize():f}"


def whole(text: str, least: int, flag: str | None = None, origin: str | None = None) -> int:
    """Returns the text as a whole number. Raises UsageError if it is none, or is below `least`."""
    try:
        number = int(validation.number(text, int))
        if number < least:
            raise UsageError(f"{text} is below {least}")
    except UsageError as error:
        error.flag, error.where = flag, origin
        raise
    return number


def halton(axes: Sequence[Axis], count: int) -> Axis:
    """Returns `count` points of the Halton sequence over all the axes, as one axis (Halton, Numerische Mathematik 2, 1960)."""

    @functools.cache
    def points() -> Sequence[Sequence[float]]:
        # This import takes a second.
        from scipy.stats import qmc

        sampler = qmc.Halton(len(axes), scramble=False)
        # The first point is at the lowest end of every range, so it is skipped.
        sampler.fast_forward(1)
        return sampler.random(count).tolist()

    def drawn(factor: Factor, dimension: int) -> Factor:
        def text(i: int) -> str:
            share = points()[i][dimension]
            return factor.text(int(share * factor.size) if factor.size else share)

        return factor._replace(size=count, text=text)

    return tuple(drawn(factor, i) for i, axis in enumerate(axes) for factor in axis)


def combinations(axes: Sequence[Axis]) -> list[tuple[Setting, ...]]:
    """Returns every combination of values along the axes, without repetitions. The first axis varies slowest."""
    choices = [
        [tuple(Setting(factor.name, factor.text(i), factor.origin) for factor in axis) for i in range(axis[0].length)]
        for axis in axes
    ]
    return list(dict.fromkeys(tuple(itertools.chain(*point)) for point in itertools.product(*choices)))
