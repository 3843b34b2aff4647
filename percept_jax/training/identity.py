"""What a run is: the settings that decide its result, the content of its data and weights, and the code that computes it."""

import hashlib
import json
import re
from typing import Any

from percept_jax import models
from percept_jax.data import registry
from percept_jax.experiment import Experiment
from percept_jax.training import source

# A path with the checksum of what is there: folder:/data/flowers#0123456789abcdef, /weights.safetensors#01234567.
_CONTENT = re.compile(r"^(\w+:|).*#([0-9a-f]{16}|[0-9a-f]{8})$", re.DOTALL)


def identity(experiment: Experiment) -> str:
    """Returns 12 hexadecimal digits that name a run: settings that are not the defaults, and the code that decides its result.

    A result that other code computed is thus never taken for this code's result.
    """
    chosen = experiment.chosen()
    digest = hashlib.sha256(code(experiment).encode())
    # Of files the checksum counts, not the path: a run means the same data and weights wherever they are.
    chosen |= {name: content_of(chosen[name]) for name in ("dataset", "init_from") if name in chosen}
    digest.update(json.dumps(chosen, sort_keys=True).encode())
    return digest.hexdigest()[:12]


def content_of(text: str) -> str:
    """A path with the checksum of what is there, as `registry.located` and `init_from.located` give it, without the path."""
    return _CONTENT.sub(r"\1#\2", text)


def code(experiment: Experiment) -> str:
    """Returns a digest of the code that decides the result of an experiment, as this process found it; see `source`."""
    model = experiment.model
    return source.digest(model, models.MODELS[model], registry.reader_class(experiment.dataset), bool(experiment.init_from))


def flag_lines(experiment: Experiment) -> list[str]:
    """Every effective science flag as a line of a flag file."""
    values = experiment.science()
    # A later one of the two takes the place of the other.
    unset = "epochs" if experiment.steps else "steps"
    return [f"--{name}={flag_text(value)}" for name, value in values.items() if name != unset]


def flag_text(value: Any) -> str:
    """A value as a flag file spells it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
