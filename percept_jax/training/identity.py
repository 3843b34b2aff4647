"""What a run is: the settings that decide its result, the content of its data and weights, and the code that computes it."""

import functools
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from percept_jax.experiment import Experiment

_PACKAGE = Path(__file__).parent.parent
# A path with the checksum of what is there: folder:/data/flowers#0123456789abcdef, /weights.safetensors#01234567.
_CONTENT = re.compile(r"^(folder:|npz:|tagged:|text:|).*#([0-9a-f]{16}|[0-9a-f]{8})$", re.DOTALL)


def identity(experiment: Experiment) -> str:
    """12 hexadecimal digits that name a run: its science values where they are not the defaults, and the package's source.

    A result computed by other code is thus not taken for this code's result.
    """
    digest = _source(_PACKAGE).copy()
    # Of files the checksum counts, not the path: a run means the same data and weights wherever they are.
    chosen = experiment.chosen()
    chosen |= {name: content_of(chosen[name]) for name in ("dataset", "init_from") if name in chosen}
    digest.update(json.dumps(chosen, sort_keys=True).encode())
    return digest.hexdigest()[:12]


def content_of(text: str) -> str:
    """A path with the checksum of what is there, as `sources.located` and `init_from.located` give it, without the path."""
    return _CONTENT.sub(r"\1#\2", text)


def code() -> str:
    """The digest of the package's source, as this process found it."""
    return _source(_PACKAGE).hexdigest()[:32]


@functools.cache
def _source(package: Path) -> Any:
    """The digest of all source code, as this process found it."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("[!.]*.py")):
        digest.update(b"\0" + str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest


def flag_lines(experiment: Experiment) -> list[str]:
    """Every effective science flag as a line of a flag file."""
    values = experiment.science()
    unset = "epochs" if experiment.steps else "steps"  # a later one of the two takes the place of the other
    return [f"--{name}={flag_text(value)}" for name, value in values.items() if name != unset]


def flag_text(value: Any) -> str:
    """A value as a flag file spells it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
