"""AlexNet (Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional neural networks")."""

from typing import Literal

import flax.linen as nn
from jax import Array

from percept_jax.errors import UsageError
from percept_jax.models.layers import INITIALIZERS, Conv, Dropout, Initializer, Norm, Pointwise, Pooling, Stem, parts, pool


class AlexNet(nn.Module):
    """AlexNet: five convolutions, three overlapping poolings, three full layers; 60,965,224 parameters on 227x227x3.

    With the paper's initial weights the loss does not fall for some dozens of steps; with he_normal it falls at once.

    Attributes:
        features: maps of each of the five convolutions.
        stem: imagenet (conv1 has 11x11 windows with stride 4) or small (5x5 with stride 1, and 1,024 units in fc6 and fc7).
        single_tower: as in Krizhevsky 2014 (arXiv:1404.5997) and torchvision: conv1 padded for 224x224, all biases start at 0.
        groups: groups of conv2, conv4 and conv5; the paper has 2, one for each GPU.
        norm: normalization after the non-linearity; lrn: the paper's local response norm.
        normalized: numbers of the convolutions that are normalized.
        norm_position: whether the normalization comes before or after the pooling.
        pooling: the maximum or the mean of each window.
        pool_window: rows and columns of a pooling window, at stride 2; 3 is the paper's overlapping pooling, 2 has no overlap.
        conv: kind of convolution.
        activation: non-linearity after every layer except the last.
        negative_slope: leaky ReLU's slope below 0.
        initializer: initial weights; the biases start at 0, those of conv2, conv4, conv5, fc6 and fc7 at 1.
    """

    num_classes: int
    features: tuple[int, ...] = (96, 256, 384, 384, 256)
    stem: Stem = "imagenet"
    single_tower: bool = False
    groups: int = 2
    norm: Literal["lrn", Norm] = "lrn"
    normalized: tuple[int, ...] = (1, 2)
    norm_position: Literal["before_pooling", "after_pooling"] = "before_pooling"
    pooling: Pooling = "max"
    pool_window: int = 3
    conv: Conv = "plain"
    activation: Pointwise = "relu"
    negative_slope: float = 0.01
    initializer: Initializer = "normal"
    axis_name: str | None = None

    def __post_init__(self) -> None:
        if len(self.features) != 5:
            raise UsageError(f"{len(self.features)} numbers, not one for each of five convolutions", "features")
        if any(features % self.groups for features in self.features):
            raise UsageError(f"{self.groups} groups do not divide all of {self.features} maps", "groups")
        super().__post_init__()

    @property
    def image_size(self) -> int:
        """The pixels a side that the model was designed for."""
        return 32 if self.stem == "small" else 224 if self.single_tower else 227

    @nn.compact
    def __call__(self, images: Array, train: bool = False, dropout_rate: Array | float = 0.0) -> Array:
        """Maps images `[batch, height, width, channels]` to logits `[batch, num_classes]`."""
        small = self.stem == "small"
        conv, norm, act = parts(self, train)
        # The paper starts these biases at 1, so that the ReLUs are active from the start.
        bias_init = nn.initializers.zeros if self.single_tower else nn.initializers.ones
        x = images
        for layer, features in enumerate(self.features, start=1):
            if layer == 1:
                geometry = {"window": 5} if small else {"window": 11, "stride": 4, "padding": 2 if self.single_tower else 0}
            else:
                geometry = {"window": 5 if layer == 2 else 3}
            split = {"feature_group_count": self.groups, "bias_init": bias_init} if layer in (2, 4, 5) else {}
            x = act(conv(features, **geometry, **split, first=layer == 1, use_bias=True, name=f"conv{layer}")(x))
            normalize = norm(name=f"norm{layer}") if layer in self.normalized else lambda x: x
            x = normalize(x) if self.norm_position == "before_pooling" else x
            x = pool(x, self.pooling, self.pool_window, stride=2) if layer in (1, 2, 5) else x
            x = normalize(x) if self.norm_position == "after_pooling" else x
        x = x.reshape(len(x), -1)
        init = INITIALIZERS[self.initializer]
        for name in ("fc6", "fc7"):
            x = act(nn.Dense(1024 if small else 4096, kernel_init=init, bias_init=bias_init, name=name)(x))
            x = Dropout(self.axis_name)(x, dropout_rate, train)
        return nn.Dense(self.num_classes, kernel_init=init, name="fc8")(x)
