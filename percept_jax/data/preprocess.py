"""Preprocessing of examples for a model: fitted once, at the start of a run, and stored with the weights."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from percept_jax.data.feed import Data
from percept_jax.data.images import resize
from percept_jax.data.spec import Dataset, Feature, Kind, Size
from percept_jax.errors import UsageError

# Means and standard deviations of red, green and blue in [0, 1], with which most of torchvision's weights were trained.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Preprocessing(NamedTuple):
    """How an example becomes a model's input, `(pixels - mean) * inv_std`, and the names of its outputs; JSON-serializable.

    Attributes:
        features, input, kind, words, classes, mask_classes: those of the data set, see `DatasetSpec`.
        image_size: height and width to which images are resized, before they may be cropped for the model; (0, 0) for sequences.
        mean, inv_std: one number for each channel or feature; empty for tokens.
        components: `[channels, channels]`, columns are the principal components of the colors in [0, 1].
        task: the name of the task, whose outputs these are.
        target_mean, target_inv_std: one number for each feature of real-valued targets, which are normalized like inputs.
    """

    features: Mapping[str, Feature]
    input: str
    kind: Kind
    image_size: Size
    classes: Sequence[str]
    words: Sequence[str] = ()
    mean: Sequence[float] = ()
    inv_std: Sequence[float] = ()
    components: Sequence[Sequence[float]] = ()
    target_mean: Sequence[float] = ()
    target_inv_std: Sequence[float] = ()
    mask_classes: Sequence[str] = ()
    task: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an input as the data set stores it."""
        return tuple(self.features[self.input].shape)

    @property
    def sequences(self) -> bool:
        """Whether an example is a sequence."""
        return self.kind not in ("images", "points")

    def check(self, example: np.ndarray) -> None:
        """Raises UsageError unless a model with this preprocessing can take `example`."""
        channels = self.shape[-1]
        if self.words:
            whole = example.ndim == 1 and np.issubdtype(example.dtype, np.integer)
            if not whole or not len(example) or not 0 <= example.min() <= example.max() < len(self.words):
                raise UsageError(f"a sequence is {example.dtype} {list(example.shape)}, not tokens 0 to {len(self.words) - 1}")
        elif self.kind == "values":
            if example.ndim != 2 or example.shape[1] != channels or not len(example) or not _fits_float32(example):
                raise UsageError(f"a sequence is {list(example.shape)}, not [time, {channels}] of finite numbers")
        elif self.kind == "points":
            if example.shape != (channels,) or not _fits_float32(example):
                raise UsageError(f"a point is {list(example.shape)}, not [{channels}] of finite numbers")
        elif example.ndim != 3 or example.dtype != np.uint8 or example.shape[-1] != channels:
            raise UsageError(f"an image is {example.dtype} {list(example.shape)}, not uint8 [height, width, {channels}]")

    def stack(self, examples: Sequence[np.ndarray], longest: int = 0) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns inputs and lengths, as in `Dataset`, of examples that pass `check`; sequences are padded to `longest`.

        If the data set stores images in one size, images are first resized to it, as the training images were.
        """
        if self.kind == "points":
            return np.asarray(examples, np.float32).reshape(-1, 1, 1, self.shape[-1]), None
        if self.sequences:
            lengths = np.array([len(example) for example in examples], np.int32)
            dtype = np.int32 if self.words else np.float32
            padded = np.zeros((len(examples), max(longest, lengths.max()), *self.shape[1:]), dtype)
            for row, example in zip(padded, examples, strict=True):
                row[: len(example)] = example
            return padded, lengths
        height, width, _ = self.shape
        stored = (resize(image, height, width) if height else image for image in examples)
        return np.stack([resize(image, *self.image_size) for image in stored]), None


def _fits_float32(array: np.ndarray) -> bool:
    """Returns whether an array holds numbers that are all finite in float32."""
    return array.dtype.kind in "fiub" and bool((np.abs(array.astype(np.float64)) <= np.finfo(np.float32).max).all())


def read(record: Mapping[str, Any]) -> Preprocessing:
    """Returns the preprocessing that a checkpoint's header records. Raises TypeError or ValueError if the record is invalid."""
    features = {name: Feature(tuple(shape), dtype) for name, (shape, dtype) in record["features"].items()}
    height, width = record["image_size"]
    return Preprocessing(**{**record, "features": features, "image_size": (height, width)})


def fit(normalize: str, dataset: Dataset, task: str = "") -> Preprocessing:
    """Returns the preprocessing of a run of this task on this data set.

    The statistics are those of the training split; padding of sequences does not count.
    """
    spec, examples = dataset.spec, dataset.examples
    train = np.sort(spec.roles["train"])
    size = dataset.inputs.shape[1:3] if spec.kind in ("images", "points") else (0, 0)
    found = Preprocessing(
        spec.features, spec.input, spec.kind, size, spec.classes, spec.words, mask_classes=spec.mask_classes, task=task
    )
    if "target" in examples:
        targets = examples["target"][train].reshape(-1, examples["target"].shape[-1])
        mean, deviation = _statistics(targets[~np.isnan(targets).any(1)], normalize)[:2]
        found = found._replace(target_mean=mean.tolist(), target_inv_std=(1 / deviation).tolist())
    if spec.words:
        return found
    inputs = dataset.inputs[train]
    if "length" in examples:
        inputs = inputs[np.arange(inputs.shape[1]) < examples["length"][train][:, None]]
    mean, deviation, covariance = _statistics(inputs, normalize)
    components = principal_components(covariance / 255**2).tolist() if spec.kind == "images" else ()
    return found._replace(mean=mean.tolist(), inv_std=(1 / deviation).tolist(), components=components)


def device_data(dataset: Dataset, preprocessing: Preprocessing, dtype: np.dtype) -> Data:
    """Returns a data set as NumPy arrays, to be placed on the devices; the statistics have this dtype."""
    p = preprocessing
    rows = (p.mean, p.inv_std, p.components, p.target_mean, p.target_inv_std)
    return Data(dict(dataset.examples), *(np.array(row, dtype) for row in rows))


def _statistics(arrays: np.ndarray, normalize: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns mean and standard deviation of each channel, as --normalize asks for them, and the channels' covariance."""
    mean, covariance = channel_statistics(arrays)
    deviation = np.sqrt(np.diag(covariance))
    if normalize == "imagenet":
        mean, deviation = 255 * np.array(IMAGENET)
    elif normalize != "standard":
        mean, deviation = np.zeros_like(mean), np.full_like(mean, {"unit": 255.0, "none": 1.0}[normalize])
    return mean, np.where(deviation > 0, deviation, 1.0), covariance


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean `[channels]` and covariance `[channels, channels]` over all but the last axis, float64, block by block."""
    channels, count = images.shape[-1], images[..., 0].size
    # Subtracting the first pixel gives constant channels a variance of exactly 0.
    origin = images.reshape(-1, channels)[0].astype(np.float64)
    total, products = np.zeros(channels), np.zeros((channels, channels))
    for first in range(0, len(images), 1024):
        pixels = images[first : first + 1024].reshape(-1, channels) - origin
        total += pixels.sum(0)
        products += pixels.T @ pixels
    mean = total / count
    return origin + mean, products / count - np.outer(mean, mean)


def principal_components(covariance: np.ndarray) -> np.ndarray:
    """Returns the components for `shift_colors`, float64, from the covariance of the training pixels / 255.

    Both are `[channels, channels]`. Columns are eigenvectors times the square roots of their eigenvalues, the largest first. The
    sign, which is arbitrary, is chosen so that the largest entry is positive; of entries that are about as large the first
    decides, since otherwise rounding would choose among them.
    """
    values, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    sizes = np.abs(vectors)
    largest = np.argmax(sizes > 0.999 * sizes.max(0), axis=0)
    signs = np.sign(vectors[largest, np.arange(len(values))])
    return vectors * signs * np.sqrt(values)
