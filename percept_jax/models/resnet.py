"""Residual networks (He et al. 2015, arXiv:1512.03385, and 2016, arXiv:1603.05027; wide: Zagoruyko 2016, arXiv:1605.07146)."""

import functools
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from percept_jax.models.layers import INITIALIZERS, Conv, Initializer, Norm, Parts, Pointwise, Stem, parts, pool

Shortcut = Literal["A", "B"]


class ResNet(nn.Module):
    """ResNet: each block adds its output to its input; ResNet-50 has 25,557,032 parameters on 224x224x3.

    The stride of a bottleneck is in its 3x3 convolution, as in torchvision ("v1.5"); the paper has it in the first 1x1.

    Attributes:
        stem: imagenet (7x7 windows with stride 2, then 3x3 pooling) or small (3x3 windows with stride 1, no pooling).
        stages: blocks of each stage.
        bottleneck: blocks have a 1x1, a 3x3 and a 1x1 convolution to four times the features, instead of two 3x3 ones.
        width: features of the first stage; each stage doubles them.
        widen: factor on the features of the 3x3 convolutions of the blocks.
        shortcut: for blocks that change the shape: A (every other pixel, zeros for new features) or B (a 1x1 convolution).
        preactivation: norm and non-linearity come before each convolution of a block, not after it ("v2").
        zero_init: each block starts as the identity: the scale of its last norm, or its last kernel, starts at 0.
        norm: normalization.
        conv: kind of convolution.
        activation: non-linearity.
        negative_slope: leaky ReLU's slope below 0.
        initializer: initial weights; the biases start at 0.
    """

    num_classes: int
    stem: Stem = "imagenet"
    stages: tuple[int, ...] = (2, 2, 2, 2)
    bottleneck: bool = False
    width: int = 64
    widen: int = 1
    shortcut: Shortcut = "B"
    preactivation: bool = False
    zero_init: bool = False
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
        small, layers = self.stem == "small", parts(self, train)
        block = functools.partial(
            Block,
            parts=layers,
            bottleneck=self.bottleneck,
            widen=self.widen,
            shortcut=self.shortcut,
            preactivation=self.preactivation,
            zero=("kernel" if self.preactivation or self.norm == "none" else "scale") if self.zero_init else None,
        )
        x = layers.conv(self.width, 3 if small else 7, 1 if small else 2, first=True, name="conv1")(images)
        x = x if self.preactivation else layers.act(layers.norm(name="bn1")(x))
        x = x if small else pool(x, "max", window=3, stride=2, padding=1)
        for stage, blocks in enumerate(self.stages):
            for i in range(blocks):
                stride = 2 if stage > 0 and i == 0 else 1
                x = block(features=self.width * 2**stage, stride=stride, name=f"layer{stage + 1}_{i}")(x)
        x = layers.act(layers.norm(name="norm")(x)) if self.preactivation else x
        return nn.Dense(self.num_classes, kernel_init=INITIALIZERS[self.initializer], name="fc")(x.mean((1, 2)))


class Block(nn.Module):
    """Two or three convolutions, whose output is added to their input.

    Attributes:
        features: of the 3x3 convolutions, before they are widened.
        stride: of the first 3x3 convolution.
        zero: whether the scale of the last norm or the last kernel starts at 0; None: neither.
        parts, bottleneck, widen, shortcut, preactivation: as chosen for the network.
    """

    parts: Parts
    features: int
    stride: int
    bottleneck: bool
    widen: int
    shortcut: Shortcut
    preactivation: bool
    zero: Literal["scale", "kernel"] | None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps `[batch, height, width, channels]` to the last convolution's features; the stride divides the resolution."""
        conv, norm, act = self.parts
        widened = self.features * self.widen
        # The features, window and stride of each convolution.
        shapes = [(widened, 3, self.stride), (widened, 3, 1)]
        if self.bottleneck:
            shapes = [(widened, 1, 1), (widened, 3, self.stride), (4 * self.features, 1, 1)]
        zeros, last = nn.initializers.zeros, len(shapes)
        y = x
        for i, shape in enumerate(shapes, start=1):
            kernel_init = {"kernel_init": zeros} if i == last and self.zero == "kernel" else {}
            scale_init = {"scale_init": zeros} if i == last and self.zero == "scale" else {}
            if self.preactivation:
                y = act(norm(name=f"bn{i}")(y))
                # A projection takes the input after the non-linearity.
                x = y if i == 1 and self._reshapes(x, shapes[-1][0]) else x
                y = conv(*shape, **kernel_init, name=f"conv{i}")(y)
            else:
                y = norm(name=f"bn{i}", **scale_init)(conv(*shape, **kernel_init, name=f"conv{i}")(y))
                y = act(y) if i < last else y
        y = y + self._shortcut(x, y.shape[-1])
        return y if self.preactivation else act(y)

    def _reshapes(self, x: Array, features: int) -> bool:
        return self.stride > 1 or x.shape[-1] != features

    def _shortcut(self, x: Array, features: int) -> Array:
        """Returns the block's input in the shape of its output."""
        if not self._reshapes(x, features):
            return x
        if self.shortcut == "A":
            return jnp.pad(x[:, :: self.stride, :: self.stride], ((0, 0),) * 3 + ((0, features - x.shape[-1]),))
        x = self.parts.conv(features, 1, self.stride, name="downsample_0")(x)
        return x if self.preactivation else self.parts.norm(name="downsample_1")(x)
