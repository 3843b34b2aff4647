"""FILE.sweep: runs a sweep, resumes it, or shows its table."""

from collections.abc import Callable
from typing import Any

from percept_jax.cli.commands.base import Command, Option
from percept_jax.sweeps.request import SweepRequest
from percept_jax.sweeps.spec import FLAGS


def run(request: SweepRequest, interrupted: Callable[[], int | None]) -> dict[str, Any]:
    """Runs a sweep. Returns its table."""
    import jax

    from percept_jax.cli import runtime, signals
    from percept_jax.sweeps.run import run as run_sweep
    from percept_jax.sweeps.workers import is_worker

    if is_worker():
        signals.end_with_parent()
    elif request.options["workers"] > 1:
        # The devices are for the workers.
        jax.config.update("jax_platforms", "cpu")
    runtime.prepare_jax(quiet=is_worker())
    return run_sweep(request, interrupted)


SWEEP = Command(
    "sweep",
    "FILE.sweep [--flag=value ...]",
    "run a sweep, resume it, or show its table",
    run,
    options=(
        Option("sweep", False, "run what the command line says as a sweep: values in braces, as in a .sweep file"),
        *(Option(name, "", text) for name, text in FLAGS.items()),
        Option("pack", "auto", "trials stepped together: auto, as measured; off, each as if it were alone; or a number a device"),
        Option("workers", 1, "processes on this machine that share it, one a device or each with its share of the cores"),
        Option("shard", "", "do one part of n, i/n counted from 0, in an array job whose tasks share a file system"),
    ),
    flags=None,
    named=False,
)
