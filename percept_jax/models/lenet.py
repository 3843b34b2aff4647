"""LeNet-5 (LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document recognition")."""

from typing import ClassVar

import flax.linen as nn
from jax import Array

from percept_jax.models.layers import ACTIVATIONS, Activation, Dropout, Norm, Pooling, norm, pool


class LeNet5(nn.Module):
    """LeNet-5 as usually built today: full C3, plain pooling, a linear output; 61,706 parameters for ten classes.

    Attributes:
        activation: non-linearity after every layer but the last.
        pooling: what S2 and S4 take of each 2x2 window.
        norm: normalisation between convolution and activation.
    """

    image_size: ClassVar[int] = 32

    num_classes: int
    activation: Activation = "relu"
    pooling: Pooling = "max"
    norm: Norm = "none"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, train: bool = False, dropout_rate: Array | float = 0.0) -> Array:
        """Images `[batch, height, width, channels]`, meant for 32x32, to logits `[batch, num_classes]`."""
        act = ACTIVATIONS[self.activation]
        x = images
        for features in (6, 16):  # C1, S2 and C3, S4
            x = nn.Conv(features, (5, 5), padding="VALID", use_bias=self.norm == "none")(x)
            x = act(norm(self.norm, train, self.axis_name)(x))
            x = pool(x, self.pooling, window=2, stride=2)
        x = x.reshape(len(x), -1)
        for units in (120, 84):  # C5, F6
            x = Dropout(self.axis_name)(act(nn.Dense(units)(x)), dropout_rate, train)
        return nn.Dense(self.num_classes)(x)
