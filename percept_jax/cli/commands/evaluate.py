"""evaluate: the metrics of a trained model."""

from typing import Any

from percept_jax.cli.commands.base import Command, Request


def run(request: Request) -> dict[str, Any]:
    """Evaluates the best weights on the validation and test splits, and returns the metrics."""
    path = EVALUATE.one(request.words)
    from percept_jax import api
    from percept_jax.cli.runtime import use_compilation_cache
    from percept_jax.console import say

    use_compilation_cache()
    trained = api.load(path)
    found = trained.evaluate(request.experiment.data_dir, request.experiment.dataset if "dataset" in request.origins else "")
    say(f"weights of step {trained.best_step}" if trained.best_step else "initial weights: the run has not validated yet")
    for split, numbers in found.items():
        say(f"{split:<10}" + "".join(f"  {name} {value:.4g}" for name, value in numbers.items()))
    return {"run_dir": path, "best_step": trained.best_step, **found}


EVALUATE = Command(
    "evaluate", "evaluate RUN_DIR", "measure a trained model on its validation and test data", run, flags=("data_dir", "dataset")
)
