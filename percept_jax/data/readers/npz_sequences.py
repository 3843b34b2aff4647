"""npz:PATH, arrays of sequences: checks the arrays and converts them to `Part`s."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from percept_jax.data.formats import npz
from percept_jax.data.readers.base import ReaderConfig
from percept_jax.errors import UsageError

# The size of the vocabulary is at most this, or the number of tokens in the file if that is larger.
MOST_TOKENS = 65_536
SPLITS = ("train", "validation", "val", "valid", "dev", "test")


class Part(NamedTuple):
    """The examples of one split.

    Attributes:
        inputs: float32 values `[examples, time, features]`, or int32 tokens `[examples, time]`; 0 beyond an example's end.
        targets: int32 labels `[examples]` or `[examples, time]`, -1 if there is none; or float32 values `[examples, features]`
            or `[examples, time, features]`, NaN if there is none.
        lengths: int32 `[examples]`, the time steps of each example.
    """

    inputs: np.ndarray
    targets: np.ndarray
    lengths: np.ndarray


class Content(NamedTuple):
    """The content of a file of sequences: its splits, a name for each label, and the word that each token stands for."""

    parts: dict[str, Part]
    classes: tuple[str, ...]
    words: tuple[str, ...]


def read_npz(path: Path, config: ReaderConfig) -> Content:
    """Returns the content of an .npz file. Raises ValueError, naming the array."""
    arrays = npz.read(path)
    if "classes" in arrays and (arrays["classes"].ndim != 1 or arrays["classes"].dtype.kind not in "USiu"):
        raise ValueError(f"classes is {arrays['classes'].dtype} {list(arrays['classes'].shape)}, not a name for each class")
    names = [split for split in SPLITS if f"x_{split}" in arrays]
    if "train" not in names:
        raise ValueError(f"no x_train; it has {', '.join(arrays) or 'nothing'}")
    parts = {split: _npz_part(arrays, split, config) for split in names}
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
    return Content(parts, classes, words)


def _classes(targets: Mapping[str, np.ndarray], names: np.ndarray | None) -> tuple[str, ...]:
    """Returns the classes' names, from `names` or as numbers.

    Raises ValueError for a label that has no name or does not occur in train.
    """
    count = 1 + max(int(labels.max()) for labels in targets.values())
    if not count:
        raise ValueError("train has no target")
    classes = tuple(range(count)) if names is None else tuple(names.tolist())
    classes = tuple(name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in classes)
    if len(classes) < count:
        raise ValueError(f"y_* has a label {count - 1}, but classes has only {len(classes)} names")
    if len(set(classes)) < len(classes) or not all(classes):
        raise ValueError("classes has a duplicate or an empty name")
    known = np.unique(targets["train"])
    for split, labels in targets.items():
        new = np.setdiff1d(labels[labels >= 0], known)
        if len(new):
            raise ValueError(f"{split} has a class {classes[new[0]]!r} that train does not have")
    if names is None and len(missing := np.setdiff1d(np.arange(count), known)):
        hint = "; labels are 0 to classes - 1" if missing[0] == 0 and len(missing) == 1 else ", or give their names as classes"
        raise ValueError(f"y_train has labels up to {count - 1}, but no {missing[0]}{hint}")
    return classes


def are_lengths(lengths: np.ndarray, x: np.ndarray) -> bool:
    """Returns whether these are valid lengths of sequences `x [examples, time, ...]`."""
    return lengths.shape == x.shape[:1] and lengths.dtype.kind in "iu" and 1 <= lengths.min() <= lengths.max() <= x.shape[1]


def _npz_part(arrays: Mapping[str, np.ndarray], split: str, config: ReaderConfig) -> Part:
    x = arrays[f"x_{split}"]
    tokens = np.issubdtype(x.dtype, np.integer)
    if x.ndim != (2 if tokens else 3) or x.dtype.kind not in "fiu" or 0 in x.shape:
        raise ValueError(f"x_{split} is {x.dtype} {list(x.shape)}, not float [examples, time, features] or int [examples, time]")
    lengths = arrays.get(f"len_{split}", np.full(len(x), x.shape[1]))
    if not are_lengths(lengths, x):
        raise ValueError(f"len_{split} is not an integer from 1 to {x.shape[1]} for each of {len(x)} examples")
    lengths = lengths.astype(np.int32)
    if config.ahead or config.horizon:
        x, y, lengths = _forecast(x, lengths, config)
    else:
        if f"y_{split}" not in arrays:
            raise ValueError(f"no y_{split}; to forecast x_{split} without it, give --ahead or --horizon")
        y = arrays[f"y_{split}"]
    labels = np.issubdtype(y.dtype, np.integer)
    _check_targets(f"y_{split}", y, x)
    # Entries past an example's length are padding, with any values.
    is_step = np.arange(x.shape[1]) < lengths[:, None]
    per_step = y.shape[1:2] == x.shape[1:2] and y.ndim == (2 if labels else 3) and not config.horizon
    if tokens:
        most = max(MOST_TOKENS, x.size) - 1
        x = npz.to_int32(np.where(is_step, x, 0), f"x_{split}", 0, most)
    else:
        x = npz.to_float32(x, f"x_{split}", is_step[:, :, None])
    if labels:
        names = arrays.get("classes")
        most = (len(names) if names is not None else y.size) - 1
        y = npz.to_int32(np.where(is_step, y, -1) if per_step else y, f"y_{split}", 1 - y.ndim, most)
    else:
        y = npz.to_float32(y, f"y_{split}", is_step[:, :, None] if per_step else None)
    # This also clears the steps that are the targets of a shorter series.
    x[~is_step] = 0
    if per_step:
        # There is a target for each step, and none beyond the last one.
        y[~is_step] = -1 if labels else np.nan
    return Part(x, y, lengths)


def _check_targets(name: str, y: np.ndarray, x: np.ndarray) -> None:
    """Raises ValueError unless `y` holds labels or values for each example."""
    labels = np.issubdtype(y.dtype, np.integer)
    if len(y) == len(x) and y.dtype.kind in "fiu" and y.ndim in ((1, 2) if labels else (2, 3)):
        if labels and y.ndim == 2 and y.shape[1] == 1 != x.shape[1]:
            raise ValueError(f"{name} is {y.dtype} {list(y.shape)}: for one label per example make it [examples], {name}[:, 0]")
        return
    hint = ""
    if y.dtype.kind in "SU":
        hint = f"; labels are numbers: classes, {name} = numpy.unique(names, return_inverse=True)"
    elif y.dtype.kind == "f" and y.ndim == 1:
        hint = f"; for labels make it integers, {name}.astype(int); for values make it [examples, 1], {name}[:, None]"
    elif y.ndim and len(y) != len(x):
        hint = f"; there are {len(x)} examples"
    expected = "labels [examples] or [examples, steps], or values [examples, features] or [examples, steps, features]"
    raise ValueError(f"{name} is {y.dtype} {list(y.shape)}, not {expected}{hint}")


def _forecast(x: np.ndarray, lengths: np.ndarray, config: ReaderConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    steps = config.ahead or config.horizon
    flag = "ahead" if config.ahead else "horizon"
    if config.ahead and config.horizon:
        raise UsageError("give --ahead or --horizon, not both", "horizon")
    if lengths.min() <= steps:
        raise UsageError(f"is {steps}, but the shortest series has {lengths.min()} steps", flag)
    if config.ahead:
        return x[:, :-steps], x[:, steps:], lengths - steps
    last = (lengths - steps)[:, None] + np.arange(steps)
    return x[:, :-steps], x[np.arange(len(x))[:, None], last], lengths - steps


def _spread(part: Part) -> Part:
    """Returns the examples in an order in which every slice is stratified; files are often sorted by class."""
    # NumPy guarantees that the random stream of RandomState never changes.
    draws = np.random.RandomState(0).permutation(len(part.targets))
    place = np.empty(len(part.targets))
    for label in np.unique(part.targets):
        here = draws[part.targets[draws] == label]
        place[here] = (np.arange(len(here)) + 0.5) / len(here)
    order = np.lexsort((part.targets, place))
    return Part(*(array[order] for array in part))
