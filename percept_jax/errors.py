"""The errors of this package, one class per exit code."""

import errno
import unicodedata
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


class PerceptError(Exception):
    """An error that a command reports in one line; `exit_code` is the exit code of the command.

    Attributes:
        found: results that the command obtained before the error; --json prints them together with the error.
    """

    exit_code = 1
    found: Mapping[str, Any] = MappingProxyType({})


class UsageError(PerceptError):
    """The command, a flag, or a file that it names is wrong.

    Attributes:
        flag: the name of the flag that is wrong, if there is one.
        where: `file:line` or "command line", once the place is known.
    """

    exit_code = 2

    def __init__(self, message: str, flag: str | None = None, where: str | None = None):
        super().__init__(message)
        self.flag, self.where = flag, where

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.flag and f"--{self.flag}", self.args[0]) if part)


class StorageError(PerceptError):
    """A file cannot be read or written, or is damaged."""

    exit_code = 3


class Busy(StorageError):
    """Another process holds a run directory."""


class DataError(PerceptError):
    """The numbers or the data are wrong: a loss that is not finite, a bad record."""

    exit_code = 4


class Interrupted(PerceptError):
    """A signal asked a run to stop. Its state has been saved, and the same command resumes it."""

    def __init__(self, signal: int, at: str = "", fresh: bool = False):
        command = "the same command" + (" without --fresh" if fresh else "")
        super().__init__(f"interrupted{at}; the state is saved, {command} resumes from there")
        self.exit_code = 128 + signal


def is_of_the_disk(error: BaseException | None) -> bool:
    """Whether an error, or one of its causes, says that the disk is full, over its quota, broken or read-only."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
    while error is not None and not (isinstance(error, OSError) and error.errno in numbers):
        error = error.__cause__
    return error is not None


def first_line(error: Exception) -> str:
    """Returns the first line of the message of another library's error, or its class if there is no message."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def in_a_line(text: str) -> str:
    """Returns a text with line breaks and unprintable characters escaped."""
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") else letter
        for letter in text
    )
