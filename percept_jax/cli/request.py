"""Parses a command line to a request."""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from percept_jax.cli import sweep_request
from percept_jax.cli.commands.base import Request
from percept_jax.cli.flagfile import COMMAND_LINE, expand
from percept_jax.cli.flags import booleans, understand
from percept_jax.cli.sweep_request import SweepRequest
from percept_jax.errors import UsageError


def parse(args: Sequence[str]) -> Request | SweepRequest:
    """Returns the request of a command line. Raises UsageError, with the place of the error."""
    plain = booleans()
    words, settings, file = expand(["--help" if arg == "-h" else arg for arg in args], plain | {f"no{name}" for name in plain})
    if words[:1] == [file] or any(setting.name == "sweep" for setting in settings):
        return sweep_request.parse(args, words, settings, file)
    for one, other in itertools.pairwise(settings):
        differ = one.name == other.name and None not in (one.text, other.text) and one.text != other.text
        if differ and one.origin == other.origin == COMMAND_LINE:
            problem = f"two values, {one.text} and {other.text}: a shell expands braces to that; for a sweep add --sweep"
            raise UsageError(problem, one.name, COMMAND_LINE)
    experiment, options, origins = understand(settings)
    path = Path(file).resolve()
    if Path(file).name == "run.flags" and path.parent.parent.name == "trials" and not experiment.run_dir:
        # This is a trial of a sweep, whose run directory is the folder of the flag file.
        experiment = dataclasses.replace(experiment, run_dir=str(path.parent))
    return Request(words, experiment, options, origins, file, _name(file))


def _name(file: str) -> str:
    """Returns the flag file's stem; for runs/<name>/<id>/run.flags returns <name>, so that it is the same run."""
    folder = Path(file).resolve().parent
    if Path(file).name == "run.flags" and re.fullmatch(r"[0-9a-f]{12}", folder.name):
        return folder.parent.name
    return Path(file).stem
