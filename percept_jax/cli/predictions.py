"""Predictions for the images, points, sequences or prompts on a command line."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from percept_jax import api, paths
from percept_jax.cli.commands.base import Request
from percept_jax.console import say
from percept_jax.data import feed
from percept_jax.data.images import read, resize
from percept_jax.data.readers import sequence_files
from percept_jax.data.readers.image_folder import IMAGES, is_litter
from percept_jax.errors import DataError, UsageError, in_a_line

# The number of unreadable images that a message names; the others are only counted.
SHOWN = 10

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def predictions(trained: api.Trained, words: Sequence[str], request: Request) -> list[dict[str, Any]]:
    """Predicts the examples that the words name or spell. Prints one line per example, and returns the predictions.

    Raises UsageError if a word is not an example that the model takes.
    """
    if trained.task.generates:
        return _text(trained, words, request)
    if trained.preprocessing.kind == "words":
        return _tags(trained, words, request)
    if trained.preprocessing.sequences:
        return _sequences(trained, words, request)
    return _points(trained, words, request) if trained.preprocessing.kind == "points" else _images(trained, words, request)


def _points(trained: api.Trained, words: Sequence[str], request: Request) -> list[dict[str, Any]]:
    return _shown(trained, [_point(word) for word in words], words, "image", request)


def _images(trained: api.Trained, words: Sequence[str], request: Request) -> list[dict[str, Any]]:
    """Predicts image files and all images in folders, in batches that are small enough for large images to fit in memory.

    Unreadable images are reported after all others have been predicted: with a UsageError if one of them was named itself, else
    with a DataError.
    """
    files, (height, width) = _files(words), trained.preprocessing.image_size
    most = max(1, min(feed.BATCH, feed.PIXELS // (height * width * trained.preprocessing.shape[-1])))
    rows, bad = [], []
    for first in range(0, len(files), most):
        names, images = [], []
        for file in files[first : first + most]:
            try:
                images.append(_image(trained, file.path))
                names.append(file.name)
            except (UsageError, DataError) as error:
                bad.append((file, str(error)))
        if images:
            rows += _shown(trained, images, names, "image", request)
    if bad:
        errors = "; ".join(in_a_line(text) for _, text in bad[:SHOWN]) + (f"; and {len(bad) - SHOWN} more" if bad[SHOWN:] else "")
        counted = f"{len(bad)} of {len(files)} images cannot be read: " if len(bad) > 1 else ""
        error = (UsageError if any(file.named for file, _ in bad) else DataError)(counted + errors)
        error.found = {"run_dir": request.words[0], "predictions": rows}
        raise error
    return rows


class _File(NamedTuple):
    """An image file: its name in the output, its path, and whether it was named itself or is in a folder that was."""

    name: str
    path: Path
    named: bool


def _files(words: Sequence[str]) -> list[_File]:
    """Returns the images that the words name, in their order; those of a folder are sorted.

    Raises UsageError if a word names neither a file nor a folder, or names a folder without images.
    """
    files, notes = [], []
    for word in words:
        path = paths.user_path(word)
        if not path.is_dir():
            files.append(_File(word, paths.input_file(word), True))
            continue
        inside = [*_inside(path)]
        images = sorted((file for file in inside if file.suffix.lower() in IMAGES), key=lambda file: file.parts)
        if not images:
            raise UsageError(f"{path}: no PNG or JPEG file in this folder")
        if skipped := len(inside) - len(images):
            files_are = "1 file that is not PNG or JPEG is" if skipped == 1 else f"{skipped} files that are not PNG or JPEG are"
            notes.append(f"{in_a_line(str(path))}: {files_are} skipped")
        files += [_File(str(image), image, False) for image in images]
    for note in notes:
        say(note)
    return files


def _inside(folder: Path) -> Iterator[Path]:
    """Yields the files in a folder and its subfolders, following links; hidden files and system files are left out."""
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        raise UsageError(f"{error.filename}: {error.strerror}")

    for directory, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        status = os.stat(directory)
        # The folder has been visited already, through a link.
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not _is_litter(name))
        yield from (Path(directory, name) for name in names if not _is_litter(name))


def _is_litter(name: str) -> bool:
    return name.startswith(".") or is_litter(name)


def _image(trained: api.Trained, path: Path) -> np.ndarray:
    """Returns an image at the size that `Preprocessing.stack` takes. Raises UsageError or DataError, naming the file."""
    height, width, channels = trained.preprocessing.shape
    image = read(paths.input_file(path), channels)
    stored = trained.preprocessing.image_size
    return resize(image, height or stored[0], width or stored[1])


def _shown(trained: api.Trained, examples: Sequence[np.ndarray], names: Sequence[str], key: str, request: Request) -> list[Any]:
    """Prints the predictions of examples, one line each, and returns them; `key` is the key of an example's name."""
    rows = []
    for name, prediction in zip(names, trained.predictions(examples, request.options["top_k"]), strict=True):
        say(in_a_line(name + trained.task.line(prediction)))
        rows.append({key: name, **prediction})
    return rows


def _sequences(trained: api.Trained, words: Sequence[str], request: Request) -> list[dict[str, Any]]:
    if trained.preprocessing.words:
        raise UsageError(f"{request.words[0]} was trained for {trained.task.name} on tokens; predict in Python: predictions()")
    rows = []
    for word in words:
        examples = sequence_files.read_examples(paths.input_file(word))
        rows += _shown(trained, examples, [f"{word}[{i}]" for i in range(len(examples))], "sequence", request)
    return rows


def _tags(trained: api.Trained, words: Sequence[str], request: Request) -> list[dict[str, Any]]:
    number = {word: i for i, word in enumerate(trained.preprocessing.words)}
    rows = []
    if not all(sentence.split() for sentence in words):
        raise UsageError("a sentence is empty")
    for sentence in words:
        sentence_words = sentence.split()
        tokens = np.array([sequence_files.token(word, number) for word in sentence_words], np.int32)
        prediction = trained.predictions([tokens])[0]
        if "classes" not in prediction:
            say(in_a_line(sentence + trained.task.line(prediction)))
            rows.append({"sentence": sentence, **prediction})
            continue
        classes = prediction["classes"]
        tagged = [[word, name] for word, name in zip(sentence_words, classes, strict=True)]
        say(in_a_line("  ".join(f"{word}/{tag}" for word, tag in tagged)))
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
        say(prompt + text)
        rows.append({"prompt": prompt, "text": text})
    return rows


def _point(word: str) -> np.ndarray:
    """Returns a point, float `[features]`. Raises UsageError if the word is not a list of ordinary numbers."""
    numbers = re.split(", ?", word)
    if all(map(_NUMBER.fullmatch, numbers)):
        point = np.array(numbers, np.float64)
        if (np.abs(point) <= np.finfo(np.float32).max).all():
            return point.astype(np.float32)
    raise UsageError(f"{word!r} is not a point; write numbers, such as 0.5,-1")
