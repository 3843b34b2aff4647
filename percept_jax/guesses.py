"""predict: what a trained model makes of images, points, sequences or a prompt, printed and returned for programs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from percept_jax import api
from percept_jax.data import sequences
from percept_jax.data.images import read
from percept_jax.errors import UsageError
from percept_jax.machine import use_compilation_cache
from percept_jax.request import Request


def predict(request: Request) -> dict[str, Any]:
    """predict RUN_DIR WHAT...: of images (PNG, JPEG) and points (0.5,-1) classes; of sequences what the model was trained for.

    A file of sequences is an .npz with x, and len where they differ; a sentence is words; a text is gone on with.
    """
    path, *words = request.words or [""]
    if not words:
        raise UsageError("usage: predict RUN_DIR IMAGE..., or POINT..., or FILE.npz, or a sentence, or a text to go on with")
    use_compilation_cache()
    trained = api.load(path)
    return {"run_dir": path, "predictions": _ways(trained)(trained, words, request)}


def _ways(trained: api.Trained) -> Callable[[api.Trained, Sequence[str], Request], list[dict[str, Any]]]:
    if trained.input.kind == "text":
        return _text
    if trained.input.kind == "words":
        return _tags
    if trained.input.sequences:
        return _sequences
    return _classes


def _classes(trained: api.Trained, words: Sequence[str], request: Request) -> list[dict[str, Any]]:
    points = trained.input.kind == "points"
    examples = [_point(word) if points else read(Path(word), trained.input.shape[-1]) for word in words]
    return _guesses(trained, trained.predict(examples), words, "image", request)


def _guesses(trained: api.Trained, found: api.Prediction, names: Sequence[str], what: str, request: Request) -> list[Any]:
    """The best classes of each example, printed a line each."""
    top_k = request.options["top_k"]
    if top_k < 1:
        raise UsageError(f"{top_k} is outside [1, inf)", "top_k")
    rows = []
    for name, row, logits in zip(names, found.probabilities, found.logits, strict=True):
        best = (-logits).argsort(kind="stable")[:top_k]
        guesses = [{"class": trained.input.classes[c], "probability": float(row[c])} for c in best]
        print(name + "".join(f"  {g['class']} {g['probability']:.4f}" for g in guesses))
        rows.append({what: name, **guesses[0], "top_k": guesses})
    return rows


def _sequences(trained: api.Trained, words: Sequence[str], request: Request) -> list[dict[str, Any]]:
    task, rows = trained.input.task, []
    for word in words:
        examples = sequences.read_examples(Path(word))
        names = [f"{word}[{i}]" for i in range(len(examples))]
        steps = [len(example) if trained.every_step else None for example in examples]  # nothing is told of padding
        if task.values:
            for name, values, n in zip(names, trained.forecast(examples), steps, strict=True):
                print(f"{name}  {np.round(values[:n], 4).tolist()}")
                rows.append({"sequence": name, "values": values[:n].tolist()})
        elif task.output_steps:
            for name, labels, n in zip(names, trained.predict(examples).labels, steps, strict=True):
                told = [trained.input.classes[label] for label in labels[:n]]
                print(name, *told)
                rows.append({"sequence": name, "classes": told})
        else:
            rows += _guesses(trained, trained.predict(examples), names, "sequence", request)
    return rows


def _tags(trained: api.Trained, words: Sequence[str], request: Request) -> list[dict[str, Any]]:
    number = {word: i for i, word in enumerate(trained.input.words)}
    rows = []
    for sentence in words:
        if not (spoken := sentence.split()):
            raise UsageError("a sentence has no words")
        labels = trained.predict([np.array([sequences.token(word, number) for word in spoken], np.int32)]).labels[0]
        tagged = [[word, trained.input.classes[label]] for word, label in zip(spoken, labels, strict=True)]
        print("  ".join(f"{word}/{tag}" for word, tag in tagged))
        rows.append({"sentence": sentence, "tags": tagged})
    return rows


def _text(trained: api.Trained, words: Sequence[str], request: Request) -> list[dict[str, Any]]:
    temperature, length = request.options["temperature"], request.options["length"]
    if not 0 <= temperature < float("inf"):
        raise UsageError(f"{temperature} is outside [0, inf)", "temperature")
    if length < 1:
        raise UsageError(f"{length} is outside [1, inf)", "length")
    rows = []
    for prompt in words:
        text = trained.generate(prompt, length, temperature, request.experiment.seed)
        print(prompt + text)
        rows.append({"prompt": prompt, "text": text})
    return rows


def _point(word: str) -> np.ndarray:
    try:
        point = np.array([float(number) for number in word.split(",")], np.float32)
    except ValueError:
        point = np.array([np.nan])
    if not np.isfinite(point).all():
        raise UsageError(f"{word!r} is not a point; write numbers, such as 0.5,-1")
    return point
