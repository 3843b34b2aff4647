"""What is done to an image before a model sees it: decided once, at the start of a run, and kept with its weights."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from percept_jax import models
from percept_jax.data.augment import Augmentation, principal_components
from percept_jax.data.dataset import Dataset, Info, channel_statistics
from percept_jax.data.images import resize
from percept_jax.errors import UsageError
from percept_jax.experiment import Experiment


class Input(NamedTuple):
    """How an image becomes a model's input, `(pixels - mean) * scale`, and what its outputs are called. All JSON.

    Attributes:
        image_shape: (height, width, channels) in which the data set stores its images; 0 where their sizes differ.
        image_size: pixels a side that the model sees.
        mean, scale: one number a channel.
        classes: a name for each output.
        components: `[channels, channels]`, columns are the principal components of the colours, from 0 to 1.
        points: whether it takes points, not images.
    """

    image_shape: Sequence[int]
    image_size: int
    mean: Sequence[float]
    scale: Sequence[float]
    classes: Sequence[str]
    components: Sequence[Sequence[float]] = ()
    points: bool = False

    def fit(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """uint8 `[height, width, channels]` of any size to `[images, image_size, image_size, channels]`.

        By way of the size in which the data set stores its images, if it has one, as the training images went.
        """
        if self.points:
            return np.asarray(images, np.float32).reshape(-1, 1, 1, self.image_shape[-1])
        height, width, _ = self.image_shape
        stored = (resize(image, height, width) if height else image for image in images)
        return np.stack([resize(image, self.image_size, self.image_size) for image in stored])


def image_size(experiment: Experiment, info: Info) -> int:
    """Pixels a side: --image_size, else what the model was made for, else what the data set has.

    Raises UsageError where all three are silent, or where the data set has no images.
    """
    if info.points:
        for flag in ("image_size", *Augmentation._fields, "mixup"):
            if getattr(experiment, flag):
                raise UsageError(f"{experiment.dataset} has points, not images", flag)
        if experiment.normalize == "unit":
            raise UsageError("points do not go from 0 to 255; choose standard or none", "normalize")
        if models.wanted_image_size(experiment.model):
            raise UsageError(f"{experiment.model} takes images, {experiment.dataset} has points; take linear or mlp", "model")
        return 1
    channels = info.image_shape[-1]
    for flag in {1: ("saturation", "pca_color"), 3: ()}.get(channels, ("contrast", "saturation")):
        if getattr(experiment, flag):
            raise UsageError(f"{experiment.dataset} has {channels} channels, not red, green and blue", flag)
    size = experiment.image_size or models.wanted_image_size(experiment.model) or max(info.image_shape[:2])
    if not size:
        raise UsageError(f"{experiment.dataset} has images of several sizes: give the one to resize them to", "image_size")
    return size


def describe(normalize: str, dataset: Dataset) -> Input:
    """The input of a run on this data set; statistics are those of the training split."""
    info = dataset.info
    mean, covariance = channel_statistics(dataset.images[np.sort(info.index["train"])])
    components = principal_components(covariance / 255**2)
    deviation = np.sqrt(np.diag(covariance))
    if normalize != "standard":
        mean, deviation = np.zeros_like(mean), np.full_like(mean, {"unit": 255.0, "none": 1.0}[normalize])
    scale = 1 / np.where(deviation > 0, deviation, 1.0)
    return Input(
        info.image_shape, dataset.images.shape[1], mean.tolist(), scale.tolist(), info.classes, components.tolist(), info.points
    )
