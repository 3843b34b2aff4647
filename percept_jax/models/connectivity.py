"""One network with three kinds of connections (LeCun 1989, "Generalization and network design strategies", Net-2 to Net-5)."""

from typing import Any, Literal

import flax.linen as nn
import jax
from jax import Array

from percept_jax.models.layers import INITIALIZERS, Activation, Initializer, activate, units


class Connectivity(nn.Module):
    """Two hidden layers of the same size, connected fully, locally, or locally with shared weights.

    A local unit sees a 5x5 window of the layer before; the stride is 2. With shared weights a map has one bias; otherwise every
    unit has its own.

    Attributes:
        connectivity: full, local (5x5 windows, unshared weights) or shared (5x5 windows, a convolution).
        features: feature maps of each hidden layer, each with half the rows and columns of the layer before.
        activation: non-linearity of the hidden layers.
        negative_slope: leaky ReLU's slope below 0.
        initializer: initial weights; the biases start at 0.
    """

    num_classes: int
    connectivity: Literal["full", "local", "shared"] = "shared"
    features: tuple[int, ...] = (4, 8)
    activation: Activation = "tanh"
    negative_slope: float = 0.01
    initializer: Initializer = "lecun_normal"

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array:
        """Maps images `[batch, height, width, channels]` to logits `[batch, num_classes]`."""
        init = INITIALIZERS[self.initializer]
        window = {"kernel_size": (5, 5), "strides": (2, 2), "padding": "SAME"}
        x = images
        for features in self.features:
            rows, columns, maps = (x.shape[1] + 1) // 2, (x.shape[2] + 1) // 2, units(self.activation, features)
            if self.connectivity == "full":
                x = nn.Dense(rows * columns * maps, kernel_init=init)(x.reshape(len(x), -1)).reshape(-1, rows, columns, maps)
            elif self.connectivity == "local":
                x = nn.ConvLocal(maps, **window, kernel_init=_for_each_position(init))(x)
            else:
                x = nn.Conv(maps, **window, kernel_init=init)(x)
            x = activate(x, self.activation, self.negative_slope)
        return nn.Dense(self.num_classes, kernel_init=init)(x.reshape(len(x), -1))


def _for_each_position(init: nn.initializers.Initializer) -> nn.initializers.Initializer:
    """Returns an initializer of unshared kernels `[rows, columns, 25 * channels, maps]`; `init` draws each position's kernel.

    If `init` drew the whole array, it would count every position as an input of one unit and draw weights far too small.
    """

    def draw(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        rows, columns, inputs, maps = shape
        kernels = jax.vmap(lambda key: init(key, (5, 5, inputs // 25, maps), dtype))(jax.random.split(key, rows * columns))
        return kernels.reshape(shape)

    return draw
