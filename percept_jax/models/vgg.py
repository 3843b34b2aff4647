"""VGG networks (Simonyan and Zisserman 2014, arXiv:1409.1556)."""

import flax.linen as nn
from jax import Array

from percept_jax.models.layers import INITIALIZERS, Conv, Dropout, Initializer, Norm, Pointwise, Pooling, Stem, parts, pool


class VGG(nn.Module):
    """VGG: stages of 3x3 convolutions, each stage at half the resolution; VGG-16 has 138,357,544 parameters on 224x224x3.

    Attributes:
        stem: imagenet (fc6 sees every position; 4,096 units) or small (fc6 sees the mean over positions; 512 units).
        stages: convolutions of each stage.
        width: feature maps of the first stage; each stage doubles them, up to eight times as many.
        norm: normalization between convolution and non-linearity.
        pooling: the maximum or the mean of each 2x2 window after a stage.
        conv: kind of convolution.
        activation: non-linearity after every layer except the last.
        negative_slope: leaky ReLU's slope below 0.
        initializer: initial weights; the biases start at 0.
    """

    num_classes: int
    stem: Stem = "imagenet"
    stages: tuple[int, ...] = (2, 2, 3, 3, 3)
    width: int = 64
    norm: Norm = "none"
    pooling: Pooling = "max"
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
        small = self.stem == "small"
        conv, norm, act = parts(self, train)
        x = images
        for stage, layers in enumerate(self.stages, start=1):
            features = self.width * min(2 ** (stage - 1), 8)
            # As in torchvision each convolution has a bias, although batch norm cancels it.
            for i in range(1, layers + 1):
                x = conv(features, 3, use_bias=True, first=stage == i == 1, name=f"conv{stage}_{i}")(x)
                x = act(norm(name=f"bn{stage}_{i}")(x))
            x = pool(x, self.pooling, window=2, stride=2)
        x = x.mean((1, 2)) if small else x.reshape(len(x), -1)
        init = INITIALIZERS[self.initializer]
        for name in ("fc6", "fc7"):
            x = act(nn.Dense(512 if small else 4096, kernel_init=init, name=name)(x))
            x = Dropout(self.axis_name)(x, dropout_rate, train)
        return nn.Dense(self.num_classes, kernel_init=init, name="fc8")(x)
