"""The identity of a run: the settings that decide its result, the content of its data and weights, and its code."""

import hashlib
import json
import re
from typing import Any

from percept_jax import models
from percept_jax.data import registry
from percept_jax.experiment import Experiment
from percept_jax.tasks import TASKS
from percept_jax.tasks.losses import OBJECTIVES
from percept_jax.training import source
from percept_jax.training.optim import OPTIMIZERS, SCHEDULES

# A path with the checksum of its content: folder:/data/flowers#0123456789abcdef, /weights.safetensors#01234567.
_CONTENT = re.compile(r"^(\w+:|).*#([0-9a-f]{16}|[0-9a-f]{8})$", re.DOTALL)


def identity(experiment: Experiment) -> str:
    """Returns 12 hexadecimal digits that identify a run: a digest of its non-default settings and of the code that it runs.

    The result of other code is therefore never mistaken for a result of this code.
    """
    chosen = experiment.chosen()
    digest = hashlib.sha256(code(experiment).encode())
    # Files count by their checksum, not by their path: data and weights may be moved.
    chosen |= {name: content_of(chosen[name]) for name in ("dataset", "init_from") if name in chosen}
    digest.update(json.dumps(chosen, sort_keys=True).encode())
    return digest.hexdigest()[:12]


def content_of(text: str) -> str:
    """Returns the text of `registry.located` or `init_from.located`, a path with a checksum, without the path."""
    return _CONTENT.sub(r"\1#\2", text)


def code(experiment: Experiment) -> str:
    """Returns a digest of the code that decides the result of an experiment, as this process found it; see `source`."""
    model = experiment.model
    tables = (TASKS, OBJECTIVES, OPTIMIZERS, SCHEDULES)
    foreign = [entry for table in tables for _, entry in sorted(table.items()) if source.is_foreign(entry)]
    reader = registry.reader_class(experiment.dataset)
    return source.digest(model, models.MODELS[model], reader, bool(experiment.init_from), others=foreign)


def flag_lines(experiment: Experiment) -> list[str]:
    """Returns every flag that decides the result, with its effective value, as a line of a flag file."""
    values = experiment.science()
    # --steps and --epochs override each other, so only the one in effect is written.
    unset = "epochs" if experiment.steps else "steps"
    return [f"--{name}={flag_text(value)}" for name, value in values.items() if name != unset]


def flag_text(value: Any) -> str:
    """Returns a value as a flag file spells it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
