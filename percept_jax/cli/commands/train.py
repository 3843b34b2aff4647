"""FILE.flags: trains an experiment, resumes it, or shows its result."""

from collections.abc import Callable
from typing import Any

from percept_jax.cli.commands.base import Command, Option, Request


def run(request: Request, interrupted: Callable[[], int | None], began: float) -> dict[str, Any]:
    """Trains an experiment and returns its result; `began` is the time at which the command was given."""
    if request.options["dry_run"]:
        from percept_jax.cli.dry_run import dry_run

        return dry_run(request.experiment, request.name, request.origins)
    from percept_jax import api, metrics, records
    from percept_jax.cli.runtime import prepare_jax
    from percept_jax.console import say

    request.experiment.validate()
    prepare_jax()
    path = api.run(request.experiment, name=request.name, interrupted=interrupted, began=began)
    result: Any = records.read_result(path)
    test, validation = result["test"], result["validation"]
    metric = metrics.headline(metrics.read(records.read(path / "provenance.json", records.Provenance)), test)
    text, value = metric.name.replace("_", " "), test[metric.name]
    shown = f"test {text} {value:.4f}"
    if metric.of:
        count = test.get(metric.of, test["examples"])
        shown += f" ({round(value * count)} of {count})"
    say(f"{shown}, loss {test['loss']:.4f}")
    say(f"at step {result['best_step']}, which was best on validation ({text} {validation[metric.name]:.4f})")
    say(str(path))
    return {"run_dir": str(path), **result}


TRAIN = Command(
    "train",
    "FILE.flags [--flag=value ...]",
    "train an experiment, resume it, or show its result",
    run,
    options=(
        Option(
            "dry_run",
            False,
            "show what would run: flags and their origins, layers, parameters, memory, steps; of a sweep arms, trials, time",
        ),
    ),
    flags=None,
    named=False,
)
