"""The command line: runs the command that the arguments ask for, and turns errors into messages and exit codes."""

import json
import re
import time
from collections.abc import Sequence
from typing import Any

from percept_jax.cli import environment, signals
from percept_jax.cli.commands import COMMANDS, OPTIONS, Command
from percept_jax.cli.commands.base import Request
from percept_jax.cli.flagfile import COMMAND_LINE
from percept_jax.cli.flags import located
from percept_jax.cli.request import parse
from percept_jax.cli.sweep_request import SweepRequest
from percept_jax.console import say
from percept_jax.errors import PerceptError, UsageError, first_line, in_a_line
from percept_jax.sweeps import spec
from percept_jax.validation import unknown


def main(args: Sequence[str], began: float | None = None) -> int:
    """Runs a command line that was given at `began` (`time.time()`). Returns its exit code; the README lists the codes."""
    as_json = _asks_for_json(args)
    try:
        request = parse(args)
        as_json = request.options["json"]
        code, found = 0, run(request, began or time.time())
    except PerceptError as error:
        code, found = error.exit_code, {**error.found, **_fault(str(error))}
    except signals.Stopped as stopped:
        code = 128 + stopped.number
        found = _fault("interrupted before there was anything new to save; the same command continues from the last saved state")
    except OSError as error:
        code, found = 3, _fault(f"{error.filename or 'storage'}: {error.strerror or error}")
    except Exception as error:
        code, found = _explained(error)
    if as_json:
        say(json.dumps(found, allow_nan=False))
    return code


def run(request: Request | SweepRequest, began: float) -> dict[str, Any]:
    """Runs a command and prints its result for the user. Returns the result for --json."""
    if request.options["help"]:
        from percept_jax.cli.help import show_help

        return show_help(request.experiment.model if isinstance(request, Request) and "model" in request.origins else None)
    if isinstance(request, SweepRequest):
        with signals.Signals() as interrupted:
            return COMMANDS["sweep"].run(request, interrupted)
    name, *rest = request.words or [""]
    if name and (name not in COMMANDS or not COMMANDS[name].named):
        raise UsageError(unknown(name, [*(n for n, c in COMMANDS.items() if c.named), "FILE.flags"]), where=COMMAND_LINE)
    if not name and not request.origins:
        problem = "the file has no settings" if request.file else "nothing to run: give a flag file or a command"
        raise UsageError(problem, where=request.file or COMMAND_LINE)
    command = COMMANDS[name or "train"]
    with located(request.origins, request.file or COMMAND_LINE):
        _check_flags(command, request)
        if name:
            return command.run(request._replace(words=rest))
        with signals.Signals() as interrupted:
            return command.run(request, interrupted, began)


def _check_flags(command: Command, request: Request) -> None:
    """Raises UsageError if a flag was given that does not apply to the command."""
    for flag in request.origins:
        if not command.accepts(flag, request.options, OPTIONS):
            hint = "; add --sweep to run a sweep" if command is COMMANDS["train"] and flag in spec.FLAGS else ""
            raise UsageError(f"does not apply to {command.name if command.named else 'training'}{hint}", flag)


def _explained(error: Exception) -> tuple[int, dict[str, Any]]:
    """Returns the exit code and the message of an error that is no bug. Raises the error again if it is one."""
    if fault := environment.backend_fault(error):
        return fault.exit_code, _fault(str(fault))
    if isinstance(error, MemoryError) or re.search("RESOURCE_EXHAUSTED|Out of memory", str(error)):
        return 5, _fault(f"out of memory: {first_line(error)}; try a smaller --batch_size, see --dry_run")
    raise error


def _asks_for_json(args: Sequence[str]) -> bool:
    """Whether the command line, which may be invalid, asks for JSON; the last --json or --nojson counts."""
    asks = False
    for arg in args:
        name, _, text = arg.lstrip("-").partition("=")
        if arg.startswith("-") and name in ("json", "nojson"):
            asks = name == "json" and text.lower() not in ("false", "f", "0")
    return asks


def _fault(line: str) -> dict[str, Any]:
    line = in_a_line(line)
    say(line, error=True)
    return {"error": line}
