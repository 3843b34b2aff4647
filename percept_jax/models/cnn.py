"""The convolutional network of the lectures, for handwritten digits."""

import functools
from typing import ClassVar

import flax.linen as nn
from jax import Array

from percept_jax.models.layers import INITIALIZERS, Activation, Dropout, Initializer, Norm, Pooling, activate, norm, pool, units


class CNN(nn.Module):
    """The lectures' digit network: 3x3 convolutions with batch norm, 2x2 pooling; 180,880 parameters on 28x28x1.

    Attributes:
        features: feature maps of each convolution; pooling follows all but the last.
        hidden: units of the fully connected layer.
        activation: non-linearity after every layer except the last.
        negative_slope: leaky ReLU's slope below 0.
        initializer: initial weights; the biases start at 0.
        norm: normalization between convolution and activation.
        pooling: the maximum or the mean of each 2x2 window.
    """

    image_size: ClassVar[int] = 28

    num_classes: int
    features: tuple[int, ...] = (16, 32, 64)
    hidden: int = 50
    activation: Activation = "relu"
    negative_slope: float = 0.01
    initializer: Initializer = "lecun_normal"
    norm: Norm = "batch"
    pooling: Pooling = "max"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, train: bool = False, dropout_rate: Array | float = 0.0) -> Array:
        """Maps images `[batch, height, width, channels]`, designed for 28x28, to logits `[batch, num_classes]`."""
        init = INITIALIZERS[self.initializer]
        widened = functools.partial(units, self.activation)
        act = functools.partial(activate, kind=self.activation, negative_slope=self.negative_slope)
        x = images
        for block, features in enumerate(self.features):
            if block > 0:
                x = pool(x, self.pooling, window=2, stride=2)
            # As in the lectures the convolution has a bias, although batch norm cancels it.
            x = nn.Conv(widened(features), (3, 3), kernel_init=init)(x)
            x = act(norm(self.norm, train, self.axis_name)(x))
        x = act(nn.Dense(widened(self.hidden), kernel_init=init)(x.reshape(len(x), -1)))
        x = Dropout(self.axis_name)(x, dropout_rate, train)
        return nn.Dense(self.num_classes, kernel_init=init)(x)
