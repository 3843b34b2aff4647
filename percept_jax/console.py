"""Says things to a person. A process outlives its terminal: a message that cannot be printed is dropped."""

import contextlib
import functools
import os
import sys
from typing import TextIO


def say(text: str = "", error: bool = False) -> None:
    """Prints a line on standard output, or on standard error; drops it where nobody can read it any more."""
    stream = sys.stderr if error else sys.stdout
    if stream is None:
        return
    try:
        print(text, file=stream, flush=True)
    except UnicodeEncodeError:
        with contextlib.suppress(OSError, ValueError):
            print(text.encode("ascii", "backslashreplace").decode(), file=stream, flush=True)
    except (OSError, ValueError):
        _forget(stream)


@functools.cache
def say_once(text: str) -> None:
    """Prints a line on standard error, the first time that it is asked to."""
    say(text, error=True)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person sees what is printed on a standard stream as it comes."""
    try:
        return stream is not None and stream.isatty()
    except (OSError, ValueError):
        return False


def _forget(stream: TextIO) -> None:
    """Points a stream that is gone to nowhere, so that what Python flushes at the end does not fail either."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
