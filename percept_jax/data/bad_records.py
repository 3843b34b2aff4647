"""Reports the images and records of a data set that cannot be read: all at once; some may be skipped."""

from collections.abc import Sequence

from percept_jax.errors import DataError, in_a_line

_SHOWN = 10


def reason(error: Exception) -> str:
    """Returns why an image or a record cannot be read, in one line."""
    return getattr(error, "strerror", None) or in_a_line(str(error)) or "it needs more memory than is available"


def summary(bad: Sequence[str], total: int, what: str) -> str:
    """Returns one line that lists the first ten bad images or records of `total`, with their errors, and counts the rest."""
    if len(bad) == 1:
        return in_a_line(bad[0])
    more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    return f"{len(bad)} of {total} {what} cannot be read: " + "; ".join(map(in_a_line, bad[:_SHOWN])) + more


def check(bad: Sequence[str], total: int, most: int, what: str) -> None:
    """Raises DataError if more than `most` images or records are bad."""
    if len(bad) > most:
        raise DataError(summary(bad, total, what) + (f"; more than --max_bad_records={most}" if most else ""))
