"""compare: the table of sweeps and runs."""

from typing import Any

from percept_jax.cli.commands.base import Command, Option, Request
from percept_jax.cli.commands.sweep import SWEEP
from percept_jax.cli.flagfile import COMMAND_LINE
from percept_jax.errors import UsageError


def run(request: Request) -> dict[str, Any]:
    """Writes, prints and returns the table of sweeps and runs, whose trials are paired by seed."""
    import hashlib

    from percept_jax import records
    from percept_jax.analysis import output
    from percept_jax.analysis.load import load
    from percept_jax.paths import output_path, user_path
    from percept_jax.sweeps.sweep_dir import SweepDir
    from percept_jax.training.run_dir import ROOT

    if not request.words or any(word.endswith(".sweep") for word in request.words):
        raise UsageError(f"usage: {COMPARE.usage}")
    paths, options = [user_path(word, where=COMMAND_LINE) for word in request.words], request.options
    to = output_path(options["to"], "to") if options["to"] else None
    if to and to.exists() and not to.is_dir():
        raise UsageError(f"{to} is not a folder", "to")
    loaded = load(paths, options["metric"], options["baseline"])
    # The table of a sweep's own folder has the metric and the baseline of its plan.
    chosen = [options[name] for name in ("metric", "baseline")]
    if len(paths) == 1 and records.is_sweep(paths[0]) and not to and not any(chosen):
        with SweepDir(paths[0]).lock_tables() as lock:
            return output.show(loaded, lock)
    digest = hashlib.sha256(repr([*(str(path.resolve()) for path in paths), *filter(None, chosen)]).encode()).hexdigest()[:8]
    with output.claim(to or ROOT / "runs" / f"compare-{digest}") as lock:
        return output.show(loaded, lock)


COMPARE = Command(
    "compare",
    "compare SWEEP_OR_RUN_DIR... [--baseline=ARM] [--metric=test/accuracy] [--to=DIR]",
    "show the table of finished or unfinished sweeps, or of runs",
    run,
    options=(
        *(option for option in SWEEP.options if option.name in ("metric", "baseline")),
        Option("to", "", "the folder for the table; with export, the file to write, FILE.safetensors"),
    ),
)
