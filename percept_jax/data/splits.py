"""Which examples are trained on, chosen on and tested on: TFDS slices of a data set's own splits to indices."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from percept_jax.errors import UsageError

ROLES = ("train", "validation", "test")


class _Split(NamedTuple):
    """As much of a split as TFDS asks for where it reads a slice."""

    num_examples: int

    @property
    def shard_lengths(self) -> list[int]:
        raise ValueError("shards are not kept; give numbers or percentages of examples")


def choose(sizes: Mapping[str, int], train: str = "", validation: str = "", test: str = "") -> dict[str, np.ndarray]:
    """Indices by role, int32, into all examples laid end to end in the order of `sizes`.

    An empty slice is the split of that name. Where there is none, a part of `train` is held out for it: its last fifth for
    the test; for validation a tenth, or a fifth if the test came out of `train` too.

    Args:
        sizes: examples of each of the data set's own splits.
        train, validation, test: TFDS slices, such as "train[:90%]" or "train+extra[:1000]"; tensorflow.org/datasets/splits.

    Raises:
        UsageError: a split does not exist, a slice is wrong or has no examples, or two roles share examples.
    """
    own = "validation" if "validation" in sizes else "val"
    match own in sizes, "test" in sizes:
        case True, True:
            usual = ("train", own, "test")
        case True, False:
            usual = ("train[:80%]", own, "train[80%:]")
        case False, True:
            usual = ("train[:90%]", "train[90%:]", "test")
        case _:
            usual = ("train[:60%]", "train[60%:80%]", "train[80%:]")
    slices = {role: given or default for role, given, default in zip(ROLES, (train, validation, test), usual, strict=True)}
    index = {role: _indices(sizes, spec, f"{role}_split") for role, spec in slices.items()}
    for one, other in (("validation", "train"), ("test", "train"), ("test", "validation")):
        if shared := len(np.intersect1d(index[one], index[other])):
            said = f"{slices[one]} shares {shared} examples with --{other}_split={slices[other]}"
            raise UsageError(f"{said}; learn, choose and report on different ones", f"{one}_split")
    return index


def _indices(sizes: Mapping[str, int], spec: str, flag: str) -> np.ndarray:
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))
    parts = [(spec, 0, sizes[spec])] if spec in sizes else _slices(sizes, spec, flag)
    index = np.concatenate([np.arange(first, last) + starts[name] for name, first, last in parts]).astype(np.int32)
    if not len(index):
        raise UsageError(f"{spec} has no examples", flag)
    if len(np.unique(index)) < len(index):
        raise UsageError(f"{spec} has examples twice", flag)
    return index


def _slices(sizes: Mapping[str, int], spec: str, flag: str) -> list[tuple[str, int, int]]:
    import tensorflow_datasets as tfds  # imports for half a second: not where whole splits are named

    try:
        found = tfds.core.ReadInstruction.from_spec(spec).to_absolute({name: _Split(n) for name, n in sizes.items()})
    except Exception as error:  # TFDS raises several kinds
        said = str(error).strip().splitlines() or [type(error).__name__]
        there = ", ".join(f"{name} ({n})" for name, n in sizes.items())
        what = f"there is no split {spec!r}" if spec.isidentifier() else f"{spec!r}: {said[-1]}"
        raise UsageError(f"{what}; there are {there}", flag) from error
    return [(part.splitname, part.from_ or 0, sizes[part.splitname] if part.to is None else part.to) for part in found]
