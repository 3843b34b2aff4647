"""Prints messages to the user. If a terminal is closed the process continues, and messages are dropped."""

import contextlib
import functools
import os
import sys
from typing import TextIO


def say(text: str = "", error: bool = False) -> None:
    """Prints a line on standard output, or on standard error; drops it if the stream is closed."""
    stream = sys.stderr if error else sys.stdout
    if stream is None:
        return
    try:
        print(text, file=stream, flush=True)
    except UnicodeEncodeError:
        with contextlib.suppress(OSError, ValueError):
            print(text.encode("ascii", "backslashreplace").decode(), file=stream, flush=True)
    except (OSError, ValueError):
        _redirect_to_null(stream)


@functools.cache
def say_once(text: str) -> None:
    """Prints a line on standard error, but each text only once."""
    say(text, error=True)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a standard stream is a terminal."""
    try:
        return stream is not None and stream.isatty()
    except (OSError, ValueError):
        return False


def _redirect_to_null(stream: TextIO) -> None:
    """Redirects a closed stream to /dev/null, so that flushing it when Python exits does not fail."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
