"""size: the bytes of a trained model."""

from typing import Any

from percept_jax.cli.commands.base import Command, Option, Request
from percept_jax.errors import UsageError


def run(request: Request) -> dict[str, Any]:
    """Adds up the bytes of a model's variables. Returns their number."""
    path, unit = SIZE.one(request.words), request.options["unit"]
    if unit not in ("B", "KiB"):
        raise UsageError(f"{unit!r} is neither B nor KiB", "unit")
    import jax

    from percept_jax import api
    from percept_jax.console import say

    total = sum(leaf.nbytes for leaf in jax.tree.leaves(api.load(path).variables))
    say(f"{total} B" if unit == "B" else f"{total / 1024:.1f} KiB")
    return {"run_dir": path, "bytes": total}


SIZE = Command(
    "size",
    "size RUN_DIR [--unit=B|KiB]",
    "the bytes of a trained model",
    run,
    options=(Option("unit", "B", "B for bytes, or KiB for 1,024 of them"),),
)
