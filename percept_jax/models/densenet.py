"""Densely connected networks (Huang et al. 2016, arXiv:1608.06993)."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from percept_jax.models.layers import INITIALIZERS, Conv, Initializer, Norm, Parts, Pointwise, Stem, parts, pool


class DenseNet(nn.Module):
    """DenseNet: each layer sees the maps of all layers before it; DenseNet-121 has 7,978,856 parameters on 224x224x3.

    This is the paper's DenseNet-BC: a 1x1 convolution comes before each 3x3 one, and each transition halves the maps.

    Attributes:
        stem: imagenet (7x7 windows with stride 2, then 3x3 pooling) or small (3x3 windows with stride 1, no pooling).
        stages: layers of each stage.
        growth: maps that a layer adds; the stem computes twice as many.
        norm: normalization before each non-linearity.
        conv: kind of convolution.
        activation: non-linearity before every convolution except the first.
        negative_slope: leaky ReLU's slope below 0.
        initializer: initial weights; the biases start at 0.
    """

    num_classes: int
    stem: Stem = "imagenet"
    stages: tuple[int, ...] = (6, 12, 24, 16)
    growth: int = 32
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
    def __call__(self, images: Array, train: bool = False) -> Array:
        """Maps images `[batch, height, width, channels]` to logits `[batch, num_classes]`."""
        x = Features(parts(self, train), self.stem, self.stages, self.growth, name="features")(images)
        return nn.Dense(self.num_classes, kernel_init=INITIALIZERS[self.initializer], name="classifier")(x.mean((1, 2)))


class Features(nn.Module):
    """The network without its classifier: four stages give feature maps at an eighth of the stem's resolution."""

    parts: Parts
    stem: Stem
    stages: tuple[int, ...]
    growth: int

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Maps `[batch, height, width, channels]` to the last stage's maps, after norm and non-linearity."""
        conv, norm, act = self.parts
        if self.stem == "small":
            x = conv(2 * self.growth, 3, first=True, name="conv0")(images)
        else:
            x = act(norm(name="norm0")(conv(2 * self.growth, 7, 2, first=True, name="conv0")(images)))
            x = pool(x, "max", window=3, stride=2, padding=1)
        for stage, layers in enumerate(self.stages, start=1):
            x = Stage(self.parts, layers, self.growth, name=f"denseblock{stage}")(x)
            if stage < len(self.stages):
                x = Transition(self.parts, name=f"transition{stage}")(x)
        return act(norm(name="norm5")(x))


class Stage(nn.Module):
    """Layers that each add `growth` maps, from `[batch, height, width, channels]` to `channels + layers * growth` maps."""

    parts: Parts
    layers: int
    growth: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the input's maps, followed by those of each layer."""
        for i in range(1, self.layers + 1):
            x = jnp.concatenate([x, Layer(self.parts, self.growth, name=f"denselayer{i}")(x)], axis=-1)
        return x


class Layer(nn.Module):
    """Norm, non-linearity and convolution, twice: 1x1 to four times the growth, then 3x3 to the growth."""

    parts: Parts
    growth: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps `[batch, height, width, channels]` to `growth` new maps."""
        conv, norm, act = self.parts
        x = conv(4 * self.growth, 1, name="conv1")(act(norm(name="norm1")(x)))
        return conv(self.growth, 3, name="conv2")(act(norm(name="norm2")(x)))


class Transition(nn.Module):
    """Halves the number of maps and the resolution."""

    parts: Parts

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps `[batch, height, width, channels]` to `[batch, height // 2, width // 2, channels // 2]`."""
        conv, norm, act = self.parts
        x = conv(x.shape[-1] // 2, 1, name="conv")(act(norm(name="norm")(x)))
        return pool(x, "average", window=2, stride=2)
