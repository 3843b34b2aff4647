"""GoogLeNet (Szegedy et al. 2014, arXiv:1409.4842), with batch norm, as torchvision builds it."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from percept_jax.models.layers import INITIALIZERS, Conv, Dropout, Initializer, Norm, Parts, Pointwise, Stem, parts, pool

# Maps of each inception: of the 1x1 branch; of the 3x3 branch, reduced and then convolved; the same for "5x5"; of the pooling
# branch. None: 2x2 or 3x3 pooling in place of an inception.
_INCEPTIONS = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "maxpool3": None,
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "maxpool4": None,
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}


class GoogLeNet(nn.Module):
    """GoogLeNet: nine inceptions with parallel windows of several sizes; 6,624,904 parameters, 13,004,888 with auxiliary heads.

    Two auxiliary heads classify from the middle of the network while it trains. Their logits are sown in the collection
    "auxiliary"; the training step adds their weighted losses to the network's own.

    Attributes:
        stem: imagenet (an eighth of the resolution before the first inception) or small (the full resolution).
        auxiliary: whether there are auxiliary heads.
        auxiliary_weight: weight of each head's loss.
        norm: normalization between convolution and non-linearity.
        conv: kind of convolution.
        activation: non-linearity after every convolution.
        negative_slope: leaky ReLU's slope below 0.
        initializer: initial weights; the biases start at 0.
    """

    num_classes: int
    stem: Stem = "imagenet"
    auxiliary: bool = True
    auxiliary_weight: float = 0.3
    norm: Norm = "batch"
    conv: Conv = "plain"
    activation: Pointwise = "relu"
    negative_slope: float = 0.01
    initializer: Initializer = "he_normal"
    axis_name: str | None = None

    @property
    def image_size(self) -> int:
        """The pixels a side that the model was designed for."""
        return 32 if self.stem == "small" else 224

    @nn.compact
    def __call__(self, images: Array, train: bool = False, dropout_rate: Array | float = 0.0) -> Array:
        """Maps images `[batch, height, width, channels]` to logits `[batch, num_classes]`."""
        small, layers = self.stem == "small", parts(self, train, epsilon=1e-3)
        init = INITIALIZERS[self.initializer]
        heads = {"inception4a": "aux1", "inception4d": "aux2"} if self.auxiliary else {}
        x = ConvNorm(layers, 64, 3 if small else 7, 1 if small else 2, first=True, name="conv1")(images)
        x = x if small else pool(x, "max", window=3, stride=2, ceil=True)
        x = ConvNorm(layers, 64, 1, name="conv2")(x)
        x = ConvNorm(layers, 192, 3, name="conv3")(x)
        x = x if small else pool(x, "max", window=3, stride=2, ceil=True)
        for name, maps in _INCEPTIONS.items():
            if maps is None:
                x = pool(x, "max", window=2 if name == "maxpool4" else 3, stride=2, ceil=True)
            else:
                x = Inception(layers, maps, name=name)(x)
            if name in heads and (train or self.is_initializing()):
                head = Head(layers, self.num_classes, init, self.axis_name, name=heads[name])
                head(x, train, dropout_rate)
        x = Dropout(self.axis_name)(x.mean((1, 2)), dropout_rate, train)
        return nn.Dense(self.num_classes, kernel_init=init, name="fc")(x)


class ConvNorm(nn.Module):
    """A convolution, its norm and its non-linearity; the stride divides the resolution of `[batch, height, width, channels]`."""

    parts: Parts
    features: int
    window: int
    stride: int = 1
    first: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `features` maps."""
        x = self.parts.conv(self.features, self.window, self.stride, first=self.first, name="conv")(x)
        return self.parts.act(self.parts.norm(name="bn")(x))


class Inception(nn.Module):
    """Four parallel branches whose maps are concatenated; the "5x5" branch is 3x3, as in torchvision's published weights.

    Attributes:
        parts: the convolution, norm and non-linearity to use.
        maps: a row of _INCEPTIONS.
    """

    parts: Parts
    maps: tuple[int, int, int, int, int, int]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the maps of all branches, at the resolution of the input `[batch, height, width, channels]`."""
        one, reduced3, three, reduced5, five, pooled = self.maps
        branches = [
            ConvNorm(self.parts, one, 1, name="branch1")(x),
            ConvNorm(self.parts, three, 3, name="branch2_1")(ConvNorm(self.parts, reduced3, 1, name="branch2_0")(x)),
            ConvNorm(self.parts, five, 3, name="branch3_1")(ConvNorm(self.parts, reduced5, 1, name="branch3_0")(x)),
            ConvNorm(self.parts, pooled, 1, name="branch4_1")(pool(x, "max", window=3, stride=1, padding=1)),
        ]
        return jnp.concatenate(branches, axis=-1)


class Head(nn.Module):
    """An auxiliary classifier, which sows its logits `[batch, num_classes]` while the network trains.

    Attributes:
        parts: the convolution, norm and non-linearity to use.
        num_classes: length of the logits.
        initializer: initial weights of the fully connected layers.
        axis_name: the mapped axis over which the batch is split; None: it is not split.
    """

    parts: Parts
    num_classes: int
    initializer: nn.initializers.Initializer
    axis_name: str | None

    @nn.compact
    def __call__(self, x: Array, train: bool, dropout_rate: Array | float) -> None:
        """Classifies feature maps `[batch, height, width, channels]` of any resolution."""
        x = ConvNorm(self.parts, 128, 1, name="conv")(adaptive_mean(x, 4))
        x = self.parts.act(nn.Dense(1024, kernel_init=self.initializer, name="fc1")(x.reshape(len(x), -1)))
        x = Dropout(self.axis_name)(x, dropout_rate, train)
        logits = nn.Dense(self.num_classes, kernel_init=self.initializer, name="fc2")(x)
        if train and not self.is_initializing():
            self.sow("auxiliary", "logits", logits)


def adaptive_mean(x: Array, cells: int) -> Array:
    """Returns the means of `[batch, height, width, channels]` over a grid of `cells` by `cells`.

    Cell i of n covers floor(i * size / n) to ceil((i + 1) * size / n), as in PyTorch: cells overlap if n does not divide the
    size, and repeat rows if there are fewer than n.
    """
    for axis in (1, 2):
        size = x.shape[axis]
        bounds = [(i * size // cells, -(-(i + 1) * size // cells)) for i in range(cells)]
        x = jnp.stack([x[(slice(None),) * axis + (slice(*ends),)].mean(axis) for ends in bounds], axis)
    return x
