"""What is done to an image before a model sees it: decided once, at the start of a run, and kept with its weights."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from percept_jax import models
from percept_jax.data.images import resize
from percept_jax.data.sources import Dataset, Info, channel_statistics
from percept_jax.experiment import Experiment


class Input(NamedTuple):
    """How an image becomes a model's input, `(pixels - mean) * scale`, and what its outputs are called. All JSON.

    Attributes:
        image_shape: (height, width, channels) in which the data set stores its images.
        image_size: pixels a side that the model sees.
        mean, scale: one number a channel.
        classes: a name for each output.
    """

    image_shape: Sequence[int]
    image_size: int
    mean: Sequence[float]
    scale: Sequence[float]
    classes: Sequence[str]

    def fit(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """uint8 `[height, width, channels]` of any size to `[images, image_size, image_size, channels]`.

        By way of the size in which the data set stores its images, as the training images went.
        """
        height, width, _ = self.image_shape
        return np.stack([resize(resize(image, height, width), self.image_size, self.image_size) for image in images])


def image_size(experiment: Experiment, info: Info) -> int:
    """Pixels a side: --image_size, else what the model was made for, else what the data set has."""
    return experiment.image_size or models.wanted_image_size(experiment.model) or max(info.image_shape[:2])


def describe(normalize: str, dataset: Dataset) -> Input:
    """The input of a run on this data set; statistics are those of the training split."""
    info = dataset.info
    mean, deviation = np.zeros(info.image_shape[-1]), np.full(info.image_shape[-1], {"unit": 255.0}.get(normalize, 1.0))
    if normalize == "standard":
        index = dataset.indices("train")
        mean, deviation = channel_statistics(dataset.images[index[0] : index[-1] + 1])
        deviation = np.where(deviation > 0, deviation, 1.0)
    return Input(info.image_shape, dataset.images.shape[1], mean.tolist(), (1 / deviation).tolist(), info.classes)
