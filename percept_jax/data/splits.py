"""Turns TFDS slices of a data set's own splits into the indices of the train, validation and test examples."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from percept_jax.errors import UsageError


class _Split(NamedTuple):
    """The attributes of a split that TFDS needs to read a slice."""

    num_examples: int

    @property
    def shard_lengths(self) -> list[int]:
        raise ValueError("slices by shard are not supported; give numbers or percentages of examples")


def choose(sizes: Mapping[str, int], train: str = "", validation: str = "", test: str = "") -> dict[str, np.ndarray]:
    """Returns indices by role, int32, into the concatenation of all splits in the order of `sizes`.

    An empty slice means the split of that name. If there is none, a part of `train` is held out for it: its last fifth for
    the test; for validation a tenth, or a fifth if the test is held out too. An empty `train` means the rest of the split.

    Args:
        sizes: examples of each of the data set's own splits.
        train, validation, test: TFDS slices, such as "train[:90%]" or "train+extra[:1000]"; tensorflow.org/datasets/splits.

    Raises:
        UsageError: a split does not exist, a slice is wrong or has no examples, or two roles share examples.
    """
    own = [name for name in ("validation", "val", "valid", "dev") if name in sizes]
    held_out = "train[90%:]" if "test" in sizes else "train[60%:80%]"
    slices = {
        "train": train or "train",
        "validation": validation or (own[0] if own else held_out),
        "test": test or ("test" if "test" in sizes else "train[80%:]"),
    }
    index = {role: _indices(sizes, spec, f"{role}_split") for role, spec in slices.items()}
    if not train:
        index["train"] = np.setdiff1d(index["train"], np.concatenate([index["validation"], index["test"]]))
        if not len(index["train"]):
            raise UsageError("validation and test leave no examples of train to train on", "train_split")
    for one, other in (("validation", "train"), ("test", "train"), ("test", "validation")):
        if shared := len(np.intersect1d(index[one], index[other])):
            message = f"{slices[one]} shares {shared} examples with --{other}_split={slices[other]}"
            raise UsageError(f"{message}; train, validate and test on different examples", f"{one}_split")
    return index


def _indices(sizes: Mapping[str, int], spec: str, flag: str) -> np.ndarray:
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))
    parts = [(spec, 0, sizes[spec])] if spec in sizes else _slices(sizes, spec, flag)
    index = np.concatenate([np.arange(first, last) + starts[name] for name, first, last in parts]).astype(np.int32)
    if not len(index):
        raise UsageError(f"{spec} has no examples", flag)
    if len(np.unique(index)) < len(index):
        raise UsageError(f"{spec} contains the same examples twice", flag)
    return index


def _slices(sizes: Mapping[str, int], spec: str, flag: str) -> list[tuple[str, int, int]]:
    # The import takes half a second, so that it is left out where whole splits are named.
    import tensorflow_datasets as tfds

    try:
        found = tfds.core.ReadInstruction.from_spec(spec).to_absolute({name: _Split(n) for name, n in sizes.items()})
    # TFDS raises several kinds of errors.
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        available = ", ".join(f"{name} ({n})" for name, n in sizes.items())
        reason = f"there is no split {spec!r}" if spec.isidentifier() else f"{spec!r}: {lines[-1]}"
        raise UsageError(f"{reason}; there are {available}", flag) from error
    return [(part.splitname, part.from_ or 0, sizes[part.splitname] if part.to is None else part.to) for part in found]
