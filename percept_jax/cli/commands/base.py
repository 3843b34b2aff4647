"""Command and Option describe what can be typed after ./launch.sh; Request is a parsed command line."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from percept_jax.errors import UsageError
from percept_jax.experiment import Experiment


class Request(NamedTuple):
    """A parsed command line.

    Attributes:
        words: its positional arguments, without flag files.
        experiment: the experiment, not yet validated.
        options: the options of the command, which are not part of an experiment.
        origins: flag -> "file:line" or "command line", for the flags that were given.
        file: the flag file; empty without one.
        name: the name of the experiment, which is that of the flag file; empty without one.
    """

    words: list[str]
    experiment: Experiment
    options: dict[str, Any]
    origins: dict[str, str]
    file: str
    name: str


class Option(NamedTuple):
    """A flag of a command that is not part of an experiment: its name, default and help text."""

    name: str
    default: Any
    help: str


class Command(NamedTuple):
    """A command of ./launch.sh.

    Attributes:
        name: the name of the command.
        usage: the text after ./launch.sh in a usage message.
        help: what the command does, in one line.
        run: runs the command, prints the result for the user, and returns it for --json. It imports what it needs itself, so that
            parsing a command line does not import what the commands need.
        options: the options of this command.
        flags: the flags of an experiment that apply to this command; None: all of them.
        named: whether the user types the name; if not, the user gives a flag file or a sweep file instead.
    """

    name: str
    usage: str
    help: str
    run: Callable[..., dict[str, Any]]
    options: tuple[Option, ...] = ()
    flags: Collection[str] | None = ()
    named: bool = True

    def accepts(self, flag: str, given: Mapping[str, Any], known: Mapping[str, Option]) -> bool:
        """Whether a flag applies to this command.

        Args:
            flag: the name of the flag.
            given: the options of the command line.
            known: the options of all commands.
        """
        if flag in {option.name for option in self.options} or flag in ("json", "help"):
            return True
        return flag not in known and (self.flags is None or flag in self.flags)

    def one(self, words: Sequence[str]) -> str:
        """Returns the only positional argument. Raises UsageError if there is not exactly one."""
        if len(words) != 1:
            raise UsageError(f"usage: {self.usage}")
        return words[0]
