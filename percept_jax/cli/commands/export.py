"""export: writes the weights of a run to a file."""

from typing import Any

from percept_jax.cli.commands.base import Command, Request
from percept_jax.cli.commands.compare import COMPARE
from percept_jax.errors import UsageError


def run(request: Request) -> dict[str, Any]:
    """Writes the best weights with their Flax names, for --init_from or another program. Returns the file's path."""
    path, to = EXPORT.one(request.words), request.options["to"]
    if not to.endswith(".safetensors"):
        raise UsageError("give a file: --to=FILE.safetensors", "to")
    import jax
    import numpy as np

    from percept_jax import api
    from percept_jax.console import say
    from percept_jax.paths import output_path
    from percept_jax.weights import file

    trained = api.load(path)
    file.save(output_path(to, "to"), trained.variables)
    say(f"{to}: weights of step {trained.best_step or 0}, {sum(map(np.size, jax.tree.leaves(trained.variables))):,} numbers")
    return {"run_dir": path, "to": to, "best_step": trained.best_step}


EXPORT = Command(
    "export",
    "export RUN_DIR --to=FILE.safetensors",
    "write the weights of a run to a safetensors file, for --init_from",
    run,
    options=tuple(option for option in COMPARE.options if option.name == "to"),
)
