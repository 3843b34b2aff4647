"""What a step is given: the examples, and where among them its batch is."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from percept_jax.data.sampler import Sampler
from percept_jax.data.spec import Dataset, DatasetSpec

# Examples at a time in an evaluation, at most.
BATCH = 512
# Numbers at a time, at most: large images are fewer.
PIXELS = BATCH * 64 * 64 * 3


class Data(NamedTuple):
    """Examples, and how they are normalized: arrays on a device, NumPy's to be placed there, or shapes to compile for.

    Attributes:
        features: by name, each `[examples, ...]`, as in `Dataset`.
        mean, inv_std: `[channels]`; a model sees `(image - mean) * inv_std`; empty for tokens.
        components: `[channels, channels]`, the principal components of the training pixels, for --pca_color.
        target_mean, target_inv_std: `[features]`, the same for targets that are values; else empty.
    """

    features: Mapping[str, Any]
    mean: Any
    inv_std: Any
    components: Any
    target_mean: Any
    target_inv_std: Any


def abstract_data(spec: DatasetSpec, shape: tuple[int, ...], real: np.dtype) -> Data:
    """Returns the shapes and dtypes of a data set on a device, whose inputs have this shape."""
    count, array = sum(spec.splits.values()), jax.ShapeDtypeStruct
    shapes = {name: tuple(feature.shape) for name, feature in spec.features.items()} | {spec.input: shape}
    numbers = array((0,) if spec.words else shape[-1:], real)
    targets = array(shapes["target"][-1:] if "target" in shapes else (0,), real)
    return Data(
        features={name: array((count, *of), spec.features[name].dtype) for name, of in shapes.items()},
        mean=numbers,
        inv_std=numbers,
        components=array(2 * shape[-1:] if spec.kind == "images" else (0,), real),
        target_mean=targets,
        target_inv_std=targets,
    )


class ResidentFeed:
    """Feeds from a data set that is on the devices as a whole: a step gathers its batch by index.

    A feed is called as `feed(step) -> (data, index)`, and split by split for an evaluation.
    """

    def __init__(self, data: Data, index: Mapping[str, np.ndarray], samplers: Sequence[Sampler], batch: int):
        """Takes what is on the devices.

        Args:
            data: the examples, placed.
            index: where those to train, validate and test on are.
            samplers: of each trial.
            batch: examples at a time in an evaluation.
        """
        self.data, self._index, self._samplers, self._batch = data, index, samplers, batch

    def __call__(self, step: int) -> tuple[Data, np.ndarray]:
        """Returns the examples, and the indices `[trials, batch]` of those of a training step, counted from 0."""
        return self.data, self._index["train"][np.stack([sampler(step) for sampler in self._samplers])]

    def split(self, name: str) -> Iterator[tuple[Data, np.ndarray]]:
        """Yields the examples, and indices `[batch]`, until each example of a split was there once; see `batches`."""
        return batches(self.data, self._index[name], self._batch)

    def nothing(self) -> Iterator[tuple[Data, np.ndarray]]:
        """Yields one batch of no examples, to compile an evaluation with."""
        return batches(self.data, self._index["train"][:0], self._batch)


def batches(data: Data, index: np.ndarray, batch: int) -> Iterator[tuple[Data, np.ndarray]]:
    """Yields data and index, `batch` numbers at a time; -1 fills up the last batch. There is always one."""
    padded = np.full(max(1, math.ceil(len(index) / batch)) * batch, -1, np.int32)
    padded[: len(index)] = index
    for part in padded.reshape(-1, batch):
        yield data, part


def evaluation_batch_size(dataset: Dataset, devices: int) -> int:
    """Returns examples in one call of an evaluation step: the same for each held-out split, and a multiple of the devices."""
    held_out = max(len(index) for role, index in dataset.spec.roles.items() if role != "train")
    most = max(1, min(BATCH, PIXELS // math.prod(dataset.inputs.shape[1:])))
    return math.ceil(min(held_out, most) / devices) * devices
