"""predict: the predictions of a trained model for images, points, sequences, sentences or a prompt."""

from typing import Any

from percept_jax.cli.commands.base import Command, Option, Request
from percept_jax.errors import UsageError


def run(request: Request) -> dict[str, Any]:
    """Predicts the examples on the command line, and returns the predictions.

    Images are PNG or JPEG files, or folders of them. A point is written as numbers, such as 0.5,-1. A file of sequences is an
    .npz with x, and with len if the lengths differ. A sentence is words between white space. A text prompt is continued.
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
    "predict images (PNG or JPEG), points, sequences or sentences with a trained model, or continue a text",
    run,
    options=(
        Option("top_k", 3, "number of classes to show for each image"),
        Option("length", 300, "number of characters that a language model generates"),
        Option(
            "temperature",
            1.0,
            "randomness of generated text: below 1 likely characters are drawn more often, 0 always draws the likeliest",
        ),
    ),
    flags=("seed",),
)
