"""Fully connected networks: the linear classifier and the multi-layer perceptron."""

import flax.linen as nn
from jax import Array

from percept_jax.models.layers import INITIALIZERS, Activation, Dropout, Initializer, activate, units


class Linear(nn.Module):
    """One linear layer from pixels to classes: multinomial logistic regression under softmax cross-entropy.

    Attributes:
        initializer: initial weights; the biases start at 0.
    """

    num_classes: int
    initializer: Initializer = "lecun_normal"

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array:
        """Maps images `[batch, height, width, channels]` to logits `[batch, num_classes]`."""
        return nn.Dense(self.num_classes, kernel_init=INITIALIZERS[self.initializer])(images.reshape(len(images), -1))


class MLP(nn.Module):
    """Multi-layer perceptron (Rumelhart, Hinton and Williams 1986) with dropout after every hidden layer.

    Attributes:
        hidden: units of each hidden layer.
        activation: non-linearity of the hidden layers.
        negative_slope: leaky ReLU's slope below 0.
        initializer: initial weights; the biases start at 0.
    """

    num_classes: int
    hidden: tuple[int, ...] = (128,)
    activation: Activation = "relu"
    negative_slope: float = 0.01
    initializer: Initializer = "lecun_normal"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, train: bool = False, dropout_rate: Array | float = 0.0) -> Array:
        """Maps images `[batch, height, width, channels]` to logits `[batch, num_classes]`."""
        init = INITIALIZERS[self.initializer]
        x = images.reshape(len(images), -1)
        for features in self.hidden:
            x = nn.Dense(units(self.activation, features), kernel_init=init)(x)
            x = activate(x, self.activation, self.negative_slope)
            x = Dropout(self.axis_name)(x, dropout_rate, train)
        return nn.Dense(self.num_classes, kernel_init=init)(x)
