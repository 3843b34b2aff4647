"""plot: the pictures of a run, a decision boundary, or augmented training images."""

from typing import Any

from percept_jax.cli.commands.base import Command, Option, Request
from percept_jax.errors import UsageError


def run(request: Request) -> dict[str, Any]:
    """Draws pictures. Returns their paths."""
    from percept_jax import api
    from percept_jax.cli.runtime import use_compilation_cache
    from percept_jax.console import say
    from percept_jax.explain import augmentations, boundary
    from percept_jax.plots.run import draw_run

    use_compilation_cache()
    if request.options["augmentations"]:
        if request.words:
            raise UsageError("usage: plot --augmentations FILE.flags")
        paths = [augmentations.draw(request.experiment, request.name)]
    else:
        if unknown := [flag for flag in request.origins if flag not in ("boundary", "data_dir", "json")]:
            raise UsageError("does not apply to plot", unknown[0])
        trained = api.load(PLOT.one(request.words))
        paths = [boundary.draw(trained, request.experiment.data_dir)] if request.options["boundary"] else draw_run(trained.path)
    for path in paths:
        say(str(path))
    return {"pictures": [str(path) for path in paths]}


PLOT = Command(
    "plot",
    "plot RUN_DIR [--boundary], or plot --augmentations FILE.flags",
    "draw the pictures of a run, the decision boundary of a model of points, or augmented training images",
    run,
    options=(
        Option("boundary", False, "draw the decision boundary of a model of points"),
        Option("augmentations", False, "draw training images as the augmentation of a flag file changes them"),
    ),
    flags=None,
)
