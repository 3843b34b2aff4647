"""Reads sequences from a user's own files: arrays (.npz), tagged sentences (JSON), a text.

npz:PATH     x_train `[examples, time, features]`, or integers `[examples, time]` for tokens; y_train; and the same for test
             and, optionally, validation. Also optional: len_train `[examples]`, and classes (their names). y_* holds the targets:
             labels `[examples]`, one label for each step `[examples, time]` (-1: none), or values `[examples, features]` or
             `[examples, time, features]`.
tagged:PATH  {"train": [[[word, tag], ...], ...], "test": ...}: a tag for each word. A word that occurs at most once in train
             becomes the token of its last two letters (Brants 2000, "TnT") if there is one, else "<unk>".
text:PATH    characters, each to be predicted from those before it: the first 80 % to train, then 10 % to validate, 10 % to test.
"""

import functools
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from percept_jax.data.formats import npz
from percept_jax.data.readers.base import ArraySource, ReaderConfig
from percept_jax.data.readers.npz_sequences import SPLITS, Content, Part, are_lengths, read_npz
from percept_jax.data.spec import DatasetSpec, Feature, Kind
from percept_jax.errors import DataError, UsageError, first_line
from percept_jax.paths import input_file

UNKNOWN = "<unk>"


class SequenceFile:
    """Reads a file of sequences: arrays, tagged sentences or a text. See `Reader`."""

    cache_name, records = "", "records"

    def __init__(self, kind: str, path: Path, config: ReaderConfig, note: Callable[[str], None] | None = None):
        """Takes the path of a file and its `kind`: npz, tagged or text. The file is read on first use."""
        self._kind, self._path, self._config = kind, path, config

    @functools.cached_property
    def _content(self) -> Content:
        """All splits, padded to the longest sequence. Raises UsageError, and DataError, which names the file and the array."""
        try:
            content = _READ[self._kind](self._path, self._config)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{self._path}: {first_line(error)}") from error
        for split, part in content.parts.items():
            if not (part.targets >= 0 if content.classes else ~np.isnan(part.targets)).any():
                raise DataError(f"{self._path}: {split} has no target")
        inputs, targets, lengths = zip(*content.parts.values(), strict=True)
        columns = _padded(inputs, 0), _padded(targets, -1), lengths
        return content._replace(parts=dict(zip(content.parts, map(Part, *columns), strict=True)))

    def describe(self) -> DatasetSpec:
        """Returns the spec of the file, which is read for that."""
        parts, classes, words = self._content
        features = {name: Feature(column.shape[1:], str(column.dtype)) for name, column in self._columns("train").items()}
        arrays: Kind = "tokens" if words else "values"
        kind: Kind = "words" if self._kind == "tagged" else "text" if self._kind == "text" else arrays
        splits = {split: len(part.inputs) for split, part in parts.items()}
        return DatasetSpec(features, classes, splits, input="tokens" if words else "series", kind=kind, words=words)

    def source(self, split: str) -> ArraySource:
        """Returns the examples of a split."""
        return ArraySource(self._columns(split))

    def files(self) -> dict[str, Path]:
        """Returns the path of the file."""
        return {"": self._path}

    def _columns(self, split: str) -> dict[str, np.ndarray]:
        parts, classes, words = self._content
        inputs, targets, lengths = parts[split]
        return {"tokens" if words else "series": inputs, "label" if classes else "target": targets, "length": lengths}


def read_examples(path: Path) -> list[np.ndarray]:
    """Returns the sequences of an .npz file with an array x `[examples, time(, features)]` and, optionally, len `[examples]`.

    Raises UsageError if the file has no such arrays.
    """
    path = input_file(path)
    try:
        arrays = npz.read(path)
    except DataError as error:
        raise UsageError(str(error)) from error
    if "x" not in arrays:
        raise UsageError(f"{path}: has no array x; it has {', '.join(arrays) or 'none'}")
    x, lengths = arrays["x"], arrays.get("len")
    if x.ndim < 2 or 0 in x.shape or (lengths is not None and not are_lengths(lengths, x)):
        raise UsageError(f"{path}: x is {list(x.shape)}, not [examples, time(, features)] with a len from 1 to time for each")
    return [row if lengths is None else row[: lengths[i]] for i, row in enumerate(x)]


def _padded(arrays: Sequence[np.ndarray], fill: int) -> list[np.ndarray]:
    """Returns arrays `[examples, time, ...]`, one for each split, padded to the longest time; `[examples]` unchanged."""
    if arrays[0].ndim < 2:
        return list(arrays)
    longest = max(a.shape[1] for a in arrays)
    rest = [(0, 0)] * (arrays[0].ndim - 2)
    value = np.nan if fill and not np.issubdtype(arrays[0].dtype, np.integer) else fill
    return [np.pad(a, [(0, 0), (0, longest - a.shape[1]), *rest], constant_values=value) for a in arrays]


def _read_tagged(path: Path, config: ReaderConfig) -> Content:
    content = json.loads(path.read_text())
    if not isinstance(content, dict) or "train" not in content:
        raise ValueError("not {'train': sentences, 'test': ...}")
    if odd := sorted(set(content) - set(SPLITS)):
        raise ValueError(f"not {{'train': sentences, 'test': ...}}, but {odd[0]!r}")
    for split, sentences in content.items():
        if not isinstance(sentences, list) or not sentences:
            raise ValueError(f"{split} is not a list of sentences")
        for i, sentence in enumerate(sentences):
            pairs = sentence if isinstance(sentence, list) else []
            if not pairs or not all(isinstance(p, list) and len(p) == 2 and all(isinstance(s, str) for s in p) for p in pairs):
                raise ValueError(f"{split}[{i}] is not [[word, tag], ...]")
    counts = Counter(word for sentence in content["train"] for word, _ in sentence)
    endings = Counter(_ending(word) for word, count in counts.items() if count == 1)
    words = (UNKNOWN, *(name for found in (counts, endings) for name in sorted(found) if found[name] > 1))
    tags = tuple(sorted({tag for sentences in content.values() for sentence in sentences for _, tag in sentence}))
    number, label = ({name: i for i, name in enumerate(names)} for names in (words, tags))
    parts = {split: _sentences(content[split], number, label) for split in SPLITS if split in content}
    return Content(parts, tags, words)


def token(word: str, number: Mapping[str, int]) -> int:
    """Returns the token of a word, or else of its ending, or else 0."""
    return number.get(word, number.get(_ending(word), 0))


def _ending(word: str) -> str:
    return f"<unk>{word[-2:]}"


def _sentences(sentences: Sequence[Any], number: Mapping[str, int], label: Mapping[str, int]) -> Part:
    lengths = np.array([len(sentence) for sentence in sentences], np.int32)
    inputs = np.zeros((len(sentences), lengths.max()), np.int32)
    targets = np.full(inputs.shape, -1, np.int32)
    for row, sentence in enumerate(sentences):
        inputs[row, : len(sentence)] = [token(word, number) for word, _ in sentence]
        targets[row, : len(sentence)] = [label[tag] for _, tag in sentence]
    return Part(inputs, targets, lengths)


def _read_text(path: Path, config: ReaderConfig) -> Content:
    text = path.read_bytes().decode()
    characters = tuple(sorted(set(text)))
    number = {character: i for i, character in enumerate(characters)}
    tokens = np.array([number[character] for character in text], np.int32)
    first, second = len(tokens) * 8 // 10, len(tokens) * 9 // 10
    if first < 2 or len(tokens) - second < 2:
        raise ValueError(f"{len(tokens)} characters are too few")
    ends = {"train": (0, first), "validation": (first, second), "test": (second, len(tokens))}
    parts = {split: _windows(tokens[a:b], config.sequence_length) for split, (a, b) in ends.items()}
    return Content(parts, characters, characters)


def _windows(tokens: np.ndarray, length: int) -> Part:
    """Returns windows of a text in which each of `tokens` but the first is a target exactly once."""
    count = math.ceil((len(tokens) - 1) / length)
    is_step = np.arange(count * length).reshape(count, length) < len(tokens) - 1
    padded = np.pad(tokens, (0, count * length + 1 - len(tokens)))
    inputs, targets = (padded[start : start + count * length].reshape(count, length) for start in (0, 1))
    return Part(np.where(is_step, inputs, 0), np.where(is_step, targets, -1).astype(np.int32), is_step.sum(1).astype(np.int32))


_READ: dict[str, Callable[[Path, ReaderConfig], Content]] = {"npz": read_npz, "tagged": _read_tagged, "text": _read_text}
