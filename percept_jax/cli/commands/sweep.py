"""FILE.sweep: runs a sweep, resumes it, or shows its table."""

from collections.abc import Callable
from typing import Any

from percept_jax.cli.commands.base import Command, Option
from percept_jax.sweeps.request import SweepRequest
from percept_jax.sweeps.spec import FLAGS


def run(request: SweepRequest, interrupted: Callable[[], int | None]) -> dict[str, Any]:
    """Runs a sweep, and returns its table."""
    import jax

    from percept_jax.cli import runtime, signals
    from percept_jax.sweeps.run import run as run_sweep
    from percept_jax.sweeps.workers import is_worker

    if is_worker():
        signals.end_with_parent()
    elif request.options["workers"] > 1:
        # This process must not take the devices, because the workers need them.
        jax.config.update("jax_platforms", "cpu")
    runtime.prepare_jax(quiet=is_worker())
    return run_sweep(request, interrupted)


SWEEP = Command(
    "sweep",
    "FILE.sweep [--flag=value ...]",
    "run a sweep, resume it, or show its table",
    run,
    options=(
        Option("sweep", False, "run the command line as a sweep: flags may have several values in braces, as in a .sweep file"),
        *(Option(name, "", text) for name, text in FLAGS.items()),
        Option("pack", "auto", "trials stepped together on each device: a number, auto (measured), or off (each alone)"),
        Option("workers", 1, "worker processes on this machine; each gets a GPU, or a share of the CPU cores"),
        Option("shard", "", "run only part i of n, given as i/n and counted from 0: for array jobs that share a file system"),
    ),
    flags=None,
    named=False,
)
