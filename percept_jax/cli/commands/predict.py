"""predict: what a trained model makes of images, points, sequences or a prompt."""

from typing import Any

from percept_jax.cli.commands.base import Command, Option, Request
from percept_jax.errors import UsageError


def run(request: Request) -> dict[str, Any]:
    """Predicts each of the examples that are named. Returns the predictions.

    Images are PNG or JPEG files, or folders of them, points are numbers such as 0.5,-1; a file of sequences is an .npz with x,
    and len where they differ; a sentence is words; a text is a prompt that is continued.
    """
    path, *words = request.words or [""]
    if not words:
        raise UsageError(f"usage: {PREDICT.usage}")
    if request.options["top_k"] < 1:
        raise UsageError(f"{request.options['top_k']} is outside [1, inf)", "top_k")
    from percept_jax import api
    from percept_jax.cli.predictions import predictions
    from percept_jax.cli.runtime import use_compilation_cache

    use_compilation_cache()
    return {"run_dir": path, "predictions": predictions(api.load(path), words, request)}


PREDICT = Command(
    "predict",
    "predict RUN_DIR IMAGE_OR_FOLDER..., or POINT..., or FILE.npz, or a sentence, or a text to continue",
    "what a trained model sees in PNG or JPEG files; or makes of points, sequences, sentences or a text",
    run,
    options=(
        Option("top_k", 3, "classes shown for each image"),
        Option("length", 300, "characters by which a language model continues a text"),
        Option("temperature", 1.0, "below 1 the likelier characters are drawn more often, at 0 always the likeliest"),
    ),
    flags=("seed",),
)
