"""Feeds a step: with the examples, and the indices of its batch among them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from percept_jax.data.sampler import Sampler
from percept_jax.data.spec import Dataset, DatasetSpec

# At most this many examples in a batch of an evaluation.
BATCH = 512
# At most this many input values in a batch of an evaluation: batches of large images are smaller.
PIXELS = BATCH * 64 * 64 * 3


class Data(NamedTuple):
    """Examples and the statistics that normalize them: arrays on a device, NumPy arrays, or shapes to compile for.

    Attributes:
        features: by name, each `[examples, ...]`, as in `Dataset`.
        mean, inv_std: `[channels]`; a model sees `(image - mean) * inv_std`; empty for tokens.
        components: `[channels, channels]`, the principal components of the training pixels, for --pca_color.
        target_mean, target_inv_std: `[features]`, the same for real-valued targets; else empty.
    """

    features: Mapping[str, Any]
    mean: Any
    inv_std: Any
    components: Any
    target_mean: Any
    target_inv_std: Any


def abstract_data(spec: DatasetSpec, shape: tuple[int, ...], float_dtype: np.dtype) -> Data:
    """Returns the shapes and dtypes of a data set on a device; `shape` is that of one input."""
    count, array = sum(spec.splits.values()), jax.ShapeDtypeStruct
    shapes = {name: tuple(feature.shape) for name, feature in spec.features.items()} | {spec.input: shape}
    # A mask has the size of the image.
    shapes |= {"mask": shape[:2]} if "mask" in shapes else {}
    numbers = array((0,) if spec.words else shape[-1:], float_dtype)
    targets = array(shapes["target"][-1:] if "target" in shapes else (0,), float_dtype)
    return Data(
        features={name: array((count, *of), spec.features[name].dtype) for name, of in shapes.items()},
        mean=numbers,
        inv_std=numbers,
        components=array(2 * shape[-1:] if spec.kind == "images" else (0,), float_dtype),
        target_mean=targets,
        target_inv_std=targets,
    )


class ResidentFeed:
    """Feeds from a data set that is on the devices as a whole: a step gathers its batch by index.

    Training calls `feed(step) -> (data, index)`; an evaluation iterates over `feed.split(name)`.
    """

    def __init__(self, data: Data, index: Mapping[str, np.ndarray], samplers: Sequence[Sampler], batch: int):
        """Makes a feed.

        Args:
            data: the examples, on the devices.
            index: the indices of the train, validation and test examples, by role.
            samplers: one for each trial.
            batch: examples in a batch of an evaluation.
        """
        self.data, self._index, self._samplers, self._batch = data, index, samplers, batch

    def __call__(self, step: int) -> tuple[Data, np.ndarray]:
        """Returns the examples and the indices `[trials, batch]` of the batch of a training step, counted from 0."""
        return self.data, self._index["train"][np.stack([sampler(step) for sampler in self._samplers])]

    def split(self, name: str) -> Iterator[tuple[Data, np.ndarray]]:
        """Yields the examples with indices `[batch]` that go once through a split; see `batches`."""
        return batches(self.data, self._index[name], self._batch)

    def nothing(self) -> Iterator[tuple[Data, np.ndarray]]:
        """Yields one empty batch, which an evaluation is compiled with."""
        return batches(self.data, self._index["train"][:0], self._batch)


def batches(data: Data, index: np.ndarray, batch: int) -> Iterator[tuple[Data, np.ndarray]]:
    """Yields data and `batch` indices at a time. The last batch is padded with -1; an empty index gives one batch of padding."""
    padded = np.full(max(1, math.ceil(len(index) / batch)) * batch, -1, np.int32)
    padded[: len(index)] = index
    for part in padded.reshape(-1, batch):
        yield data, part


def evaluation_batch_size(dataset: Dataset, devices: int) -> int:
    """Returns the batch size of an evaluation: the same for each held-out split, and a multiple of the number of devices."""
    held_out = max(len(index) for role, index in dataset.spec.roles.items() if role != "train")
    most = max(1, min(BATCH, PIXELS // math.prod(dataset.inputs.shape[1:])))
    return math.ceil(min(held_out, most) / devices) * devices
