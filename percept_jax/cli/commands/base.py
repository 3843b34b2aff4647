"""Command, with its Options, and Request: what can be typed after ./launch.sh, and what was."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from percept_jax.errors import UsageError
from percept_jax.experiment import Experiment


class Request(NamedTuple):
    """A command line that has been understood.

    Attributes:
        words: its positional arguments, without flag files.
        experiment: not yet validated.
        options: what is asked of a command, and is no part of an experiment.
        origins: flag -> "file:line" or "command line", for those that were given.
        file: the flag file, where there is one.
        name: of the experiment: the flag file's; empty without one.
    """

    words: list[str]
    experiment: Experiment
    options: dict[str, Any]
    origins: dict[str, str]
    file: str
    name: str


class Option(NamedTuple):
    """A flag that is asked of a command, and is no part of an experiment: its name, default and help."""

    name: str
    default: Any
    help: str


class Command(NamedTuple):
    """What can be typed after ./launch.sh.

    Attributes:
        name: as it is typed, where it is.
        usage: what follows ./launch.sh.
        help: what it does, in a line.
        run: does what is asked, and prints it for a person; returns the same for programs. It imports what it needs: parsing a
            command line takes the options of all commands, and none of their imports.
        options: those of this command alone.
        flags: of an experiment, those that mean something to it; None: all of them.
        named: whether its name is typed; else it is a flag file or a sweep file that stands there.
    """

    name: str
    usage: str
    help: str
    run: Callable[..., dict[str, Any]]
    options: tuple[Option, ...] = ()
    flags: Collection[str] | None = ()
    named: bool = True

    def listens(self, flag: str, given: Mapping[str, Any], known: Mapping[str, Option]) -> bool:
        """Returns whether a flag means something to this command.

        Args:
            flag: its name.
            given: the options of the command line.
            known: the options of all commands.
        """
        if flag in {option.name for option in self.options} or flag in ("json", "help"):
            return True
        return flag not in known and (self.flags is None or flag in self.flags)

    def one(self, words: Sequence[str]) -> str:
        """Returns the only word of a command line. Raises UsageError where there is none, or more."""
        if len(words) != 1:
            raise UsageError(f"usage: {self.usage}")
        return words[0]
