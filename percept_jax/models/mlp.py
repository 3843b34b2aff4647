"""Fully connected networks: the linear classifier and the multi-layer perceptron."""

import flax.linen as nn
from jax import Array

from percept_jax.models.layers import ACTIVATIONS, Activation, Dropout


class Linear(nn.Module):
    """One linear layer from pixels to classes: multinomial logistic regression under softmax cross-entropy."""

    num_classes: int

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array:
        """Images `[batch, height, width, channels]` to logits `[batch, num_classes]`."""
        return nn.Dense(self.num_classes)(images.reshape(len(images), -1))


class MLP(nn.Module):
    """Multi-layer perceptron (Rumelhart, Hinton and Williams 1986), dropout after every hidden layer.

    Attributes:
        hidden: units of each hidden layer.
        activation: non-linearity of the hidden layers.
    """

    num_classes: int
    hidden: tuple[int, ...] = (128,)
    activation: Activation = "relu"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, train: bool = False, dropout_rate: Array | float = 0.0) -> Array:
        """Images `[batch, height, width, channels]` to logits `[batch, num_classes]`."""
        x = images.reshape(len(images), -1)
        for units in self.hidden:
            x = ACTIVATIONS[self.activation](nn.Dense(units)(x))
            x = Dropout(self.axis_name)(x, dropout_rate, train)
        return nn.Dense(self.num_classes)(x)
