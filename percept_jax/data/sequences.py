"""Sequences in files of one's own: arrays (.npz), tagged sentences (JSON), a text.

npz:PATH     x_train `[examples, time, features]`, or whole numbers `[examples, time]` for tokens; y_train, and the same for
             test and, where there is one, validation. Optional: len_train `[examples]`, classes (their names). What y_* holds
             is what is learned: labels `[examples]`, labels a step `[examples, time]` (-1: none), values `[examples, features]`
             or `[examples, time, features]`.
tagged:PATH  {"train": [[[word, tag], ...], ...], "test": ...}: a tag for each word. Words that train has once, or not at all,
             are known by their last two letters (Brants 2000, "TnT"), or not at all: "<unk>".
text:PATH    characters, each to be told from those before it; the first 80 % to train, then 10 % to validate, 10 % to test.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from percept_jax.data import names, npz
from percept_jax.data.dataset import Dataset, Info
from percept_jax.errors import DataError, UsageError, first_line
from percept_jax.paths import input_file, user_path

MOST_TOKENS = 65_536  # different ones, where there are not more tokens than that
SPLITS = ("train", "validation", "val", "valid", "dev", "test")
UNKNOWN = "<unk>"


class Reading(NamedTuple):
    """How data are read.

    Attributes:
        sequence_length: characters of a text in one example.
        ahead: a target for each step of a series: its value so many steps later; 0: none.
        horizon: the last so many steps of a series are the target, those before them the input; 0: none.
        max_bad_records: images or records that cannot be read, and are skipped.
        fresh_cache: whether files are read again, whatever is kept of them.
    """

    sequence_length: int = 128
    ahead: int = 0
    horizon: int = 0
    max_bad_records: int = 0
    fresh_cache: bool = False


class Part(NamedTuple):
    """Inputs, targets and lengths of one split, as in `Dataset`."""

    inputs: np.ndarray
    targets: np.ndarray
    lengths: np.ndarray


def is_sequences(name: str) -> bool:
    """Whether a data set's name is that of a file of sequences."""
    return names.parts(name)[0] in READERS


def path_of(name: str, data_dir: Path) -> Path:
    """The file that a name stands for: from here, else from the data directory. Raises UsageError where there is none."""
    kind, path, _ = names.parts(name)
    if not path:
        raise UsageError(f"needs a path: {kind}:PATH", "dataset")
    places = [user_path(path, "dataset"), data_dir / path, data_dir / Path(path).name]
    found = next((place for place in places if os.path.isfile(place)), None)
    if found is None:
        raise UsageError(f"there is no file {path}, neither here nor in {data_dir}", "dataset")
    return names.absolute(found)


def load(name: str, data_dir: Path, reading: Reading) -> Dataset:
    """All splits of a file, its index not chosen yet. Raises UsageError and DataError, naming the file and the array or place."""
    path, kind = path_of(name, data_dir), name.split(":")[0]
    try:
        parts, info = READERS[kind](path, reading)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: {first_line(error)}") from error
    for split, part in parts.items():
        if not (part.targets >= 0 if info.classes else ~np.isnan(part.targets)).any():
            raise DataError(f"{path}: {split} has no target")
    columns = zip(*parts.values(), strict=True)
    inputs, targets, lengths = (_stack(arrays, fill) for arrays, fill in zip(columns, (0, -1, 0), strict=True))
    info = info._replace(
        shape=inputs.shape[1:], target_shape=targets.shape[1:], splits={s: len(p.inputs) for s, p in parts.items()}
    )
    return Dataset(info, inputs, targets, lengths)


def read_examples(path: Path) -> list[np.ndarray]:
    """Sequences out of an .npz with x `[examples, time(, features)]`, and len `[examples]` where they differ.

    Raises UsageError where there is none.
    """
    path = input_file(path)
    try:
        arrays = npz.read(path)
    except DataError as error:
        raise UsageError(str(error)) from error
    if "x" not in arrays:
        raise UsageError(f"{path}: has no array x, but {', '.join(arrays) or 'nothing'}")
    x, lengths = arrays["x"], arrays.get("len")
    if x.ndim < 2 or 0 in x.shape or (lengths is not None and not _are_lengths(lengths, x)):
        raise UsageError(f"{path}: x is {list(x.shape)}, not [examples, time(, features)] with a len from 1 to time for each")
    return [row if lengths is None else row[: lengths[i]] for i, row in enumerate(x)]


def restrict(dataset: Dataset, info: Info) -> Dataset:
    """The splits that `info` names."""
    own = np.repeat(list(dataset.info.splits), list(dataset.info.splits.values()))
    used = np.isin(own, list(info.splits))
    return Dataset(info, dataset.inputs[used], dataset.targets[used], dataset.lengths[used])


def _stack(arrays: Sequence[np.ndarray], fill: int) -> np.ndarray:
    """Arrays `[examples, time, ...]` one after the other, padded to the longest time; `[examples]` as they are."""
    if arrays[0].ndim < 2:
        return np.concatenate(arrays)
    longest = max(a.shape[1] for a in arrays)
    rest = [(0, 0)] * (arrays[0].ndim - 2)
    value = np.nan if fill and not np.issubdtype(arrays[0].dtype, np.integer) else fill
    return np.concatenate([np.pad(a, [(0, 0), (0, longest - a.shape[1]), *rest], constant_values=value) for a in arrays])


def _read_npz(path: Path, reading: Reading) -> tuple[dict[str, Part], Info]:
    arrays = npz.read(path)
    if "classes" in arrays and (arrays["classes"].ndim != 1 or arrays["classes"].dtype.kind not in "USiu"):
        raise ValueError(f"classes is {arrays['classes'].dtype} {list(arrays['classes'].shape)}, not a name for each class")
    names = [split for split in SPLITS if f"x_{split}" in arrays]
    if "train" not in names:
        raise ValueError(f"no x_train; it has {', '.join(arrays) or 'nothing'}")
    parts = {split: _npz_part(arrays, split, reading) for split in names}
    kinds = {(p.inputs.dtype, p.inputs.shape[2:], p.targets.dtype, p.targets.ndim, p.targets.shape[2:]) for p in parts.values()}
    if len(kinds) > 1:
        raise ValueError("arrays of the splits differ in more than examples and time")
    tokens = np.issubdtype(parts["train"].inputs.dtype, np.integer)
    words = tuple(map(str, range(1 + max(int(p.inputs.max()) for p in parts.values())))) if tokens else ()
    classes: tuple[str, ...] = ()
    if np.issubdtype(parts["train"].targets.dtype, np.integer):
        classes = _classes({split: part.targets for split, part in parts.items()}, arrays.get("classes"))
        if parts["train"].targets.ndim == 1:
            parts = {split: _spread(part) for split, part in parts.items()}
    return parts, Info((), classes, {}, kind="tokens" if tokens else "values", words=words)


def _classes(targets: Mapping[str, np.ndarray], names: np.ndarray | None) -> tuple[str, ...]:
    """The classes' names, those of `names` or numbers. Raises ValueError for a label without a name, or that train has not."""
    count = 1 + max(int(labels.max()) for labels in targets.values())
    if not count:
        raise ValueError("train has no target")
    classes = tuple(range(count)) if names is None else tuple(names.tolist())
    classes = tuple(name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in classes)
    if len(classes) < count:
        raise ValueError(f"y_* has a label {count - 1}, and classes only {len(classes)} names")
    if len(set(classes)) < len(classes) or not all(classes):
        raise ValueError("classes has a name twice, or an empty one")
    known = np.unique(targets["train"])
    for split, labels in targets.items():
        new = np.setdiff1d(labels[labels >= 0], known)
        if len(new):
            raise ValueError(f"{split} has a class {classes[new[0]]!r} that train has not")
    if names is None and len(missing := np.setdiff1d(np.arange(count), known)):
        hint = "; labels are 0 to classes - 1" if missing[0] == 0 and len(missing) == 1 else ", or give their names as classes"
        raise ValueError(f"y_train has labels up to {count - 1}, but no {missing[0]}{hint}")
    return classes


def _are_lengths(lengths: np.ndarray, x: np.ndarray) -> bool:
    return lengths.shape == x.shape[:1] and lengths.dtype.kind in "iu" and 1 <= lengths.min() <= lengths.max() <= x.shape[1]


def _npz_part(arrays: Mapping[str, np.ndarray], split: str, reading: Reading) -> Part:
    x = arrays[f"x_{split}"]
    tokens = np.issubdtype(x.dtype, np.integer)
    if x.ndim != (2 if tokens else 3) or x.dtype.kind not in "fiu" or 0 in x.shape:
        raise ValueError(f"x_{split} is {x.dtype} {list(x.shape)}, not float [examples, time, features] or int [examples, time]")
    lengths = arrays.get(f"len_{split}", np.full(len(x), x.shape[1]))
    if not _are_lengths(lengths, x):
        raise ValueError(f"len_{split} is not a whole number from 1 to {x.shape[1]} for each of {len(x)} examples")
    lengths = lengths.astype(np.int32)
    if reading.ahead or reading.horizon:
        x, y, lengths = _forecast(x, lengths, reading)
    else:
        if f"y_{split}" not in arrays:
            raise ValueError(f"no y_{split}; without it, give --ahead or --horizon to forecast x_{split}")
        y = arrays[f"y_{split}"]
    labels = np.issubdtype(y.dtype, np.integer)
    _check_targets(f"y_{split}", y, x)
    real = np.arange(x.shape[1]) < lengths[:, None]  # beyond is padding, which may be anything
    a_step = y.shape[1:2] == x.shape[1:2] and y.ndim == (2 if labels else 3) and not reading.horizon
    if tokens:
        most = max(MOST_TOKENS, x.size) - 1
        x = npz.to_int32(np.where(real, x, 0), f"x_{split}", 0, most)
    else:
        x = npz.to_float32(x, f"x_{split}", real[:, :, None])
    if labels:
        names = arrays.get("classes")
        most = (len(names) if names is not None else y.size) - 1
        y = npz.to_int32(np.where(real, y, -1) if a_step else y, f"y_{split}", 1 - y.ndim, most)
    else:
        y = npz.to_float32(y, f"y_{split}", real[:, :, None] if a_step else None)
    x[~real] = 0  # also where a shorter series has its targets
    if a_step:
        y[~real] = -1 if labels else np.nan  # a target a step: none beyond the last one
    return Part(x, y, lengths)


def _check_targets(name: str, y: np.ndarray, x: np.ndarray) -> None:
    """Raises ValueError unless there is a target of a kind that can be learned for each example."""
    labels = np.issubdtype(y.dtype, np.integer)
    if len(y) == len(x) and y.dtype.kind in "fiu" and y.ndim in ((1, 2) if labels else (2, 3)):
        if labels and y.ndim == 2 and y.shape[1] == 1 != x.shape[1]:
            raise ValueError(f"{name} is {y.dtype} {list(y.shape)}: for a label an example make it [examples], {name}[:, 0]")
        return
    hint = ""
    if y.dtype.kind in "SU":
        hint = f"; labels are numbers: classes, {name} = numpy.unique(names, return_inverse=True)"
    elif y.dtype.kind == "f" and y.ndim == 1:
        hint = f"; for labels make it whole numbers, {name}.astype(int), for values [examples, 1], {name}[:, None]"
    elif y.ndim and len(y) != len(x):
        hint = f"; there are {len(x)} examples"
    wanted = "labels [examples] or [examples, steps], or values [examples, features] or [examples, steps, features]"
    raise ValueError(f"{name} is {y.dtype} {list(y.shape)}, not {wanted}{hint}")


def _forecast(x: np.ndarray, lengths: np.ndarray, reading: Reading) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    steps = reading.ahead or reading.horizon
    flag = "ahead" if reading.ahead else "horizon"
    if reading.ahead and reading.horizon:
        raise UsageError("give --ahead or --horizon, not both", "horizon")
    if lengths.min() <= steps:
        raise UsageError(f"the shortest series has {lengths.min()} steps", flag)
    if reading.ahead:
        return x[:, :-steps], x[:, steps:], lengths - steps
    last = (lengths - steps)[:, None] + np.arange(steps)
    return x[:, :-steps], x[np.arange(len(x))[:, None], last], lengths - steps


def _spread(part: Part) -> Part:
    """Examples in an order in which each slice has every class in its share; files are often sorted by class."""
    draws = np.random.RandomState(0).permutation(len(part.targets))  # its stream is frozen
    place = np.empty(len(part.targets))
    for label in np.unique(part.targets):
        here = draws[part.targets[draws] == label]
        place[here] = (np.arange(len(here)) + 0.5) / len(here)
    order = np.lexsort((part.targets, place))
    return Part(*(array[order] for array in part))


def _read_tagged(path: Path, reading: Reading) -> tuple[dict[str, Part], Info]:
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
    return parts, Info((), tags, {}, kind="words", words=words)


def token(word: str, number: Mapping[str, int]) -> int:
    """The token of a word: its own, else that of its ending, else 0."""
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


def _read_text(path: Path, reading: Reading) -> tuple[dict[str, Part], Info]:
    text = path.read_bytes().decode()
    characters = tuple(sorted(set(text)))
    number = {character: i for i, character in enumerate(characters)}
    tokens = np.array([number[character] for character in text], np.int32)
    first, second = len(tokens) * 8 // 10, len(tokens) * 9 // 10
    if first < 2 or len(tokens) - second < 2:
        raise ValueError(f"{len(tokens)} characters are too few")
    ends = {"train": (0, first), "validation": (first, second), "test": (second, len(tokens))}
    parts = {split: _windows(tokens[a:b], reading.sequence_length) for split, (a, b) in ends.items()}
    return parts, Info((), characters, {}, kind="text", words=characters)


def _windows(tokens: np.ndarray, length: int) -> Part:
    """Windows that tell each token but the first of `tokens` once."""
    count = math.ceil((len(tokens) - 1) / length)
    real = np.arange(count * length).reshape(count, length) < len(tokens) - 1
    padded = np.pad(tokens, (0, count * length + 1 - len(tokens)))
    inputs, targets = (padded[start : start + count * length].reshape(count, length) for start in (0, 1))
    return Part(np.where(real, inputs, 0), np.where(real, targets, -1).astype(np.int32), real.sum(1).astype(np.int32))


READERS: dict[str, Callable[[Path, Reading], tuple[dict[str, Part], Info]]] = {
    "npz": _read_npz,
    "tagged": _read_tagged,
    "text": _read_text,
}
