"""LeNet-5 (LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document recognition")."""

import functools
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax import Array

from percept_jax.models.layers import INITIALIZERS, Activation, Dropout, Initializer, Norm, Pooling, activate, norm, pool, units

# Table I of the paper: the maps of S2 (rows) that each map of C3 (columns) sees.
_TABLE_1 = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""
# Bool [6, 16], of which 60 are true.
C3_SEES = np.array([[mark == "X" for mark in row] for row in _TABLE_1.split()])

# Figure 3 of the paper: the target of F6 for each digit, +1 for ink and -1 for none. It equals, pixel by pixel, a public
# transcription (github.com/mattwang44/LeNet-from-Scratch), but was not compared with the figure itself. The bars over 0, 2, 4 and
# 5 presumably distinguish them from O, Z, y and S: the paper wants similar codes for characters that are easily confused.
_FIGURE_3 = """
.#####. ...##.. .#####. ####### .#####.
....... ..###.. ....... .....## .......
..###.. .####.. .#####. ....##. .......
.##.##. ...##.. ##...## ...##.. .##..##
##...## ...##.. #....## ..####. .##..##
##...## ...##.. ....##. .....## ###..##
##...## ...##.. ..###.. .....## ##...##
##...## ...##.. .##.... .....## ##...##
.##.##. ...##.. ##..... ##...## ##..###
..###.. .###### ####### .#####. .######
....... ....... ....... ....... .....##
....... ....... ....... ....... .....##

.#####. ..####. ####### .#####. .#####.
....... .##.... .....## ##...## ##..###
####### ##..... .....## ##...## ##...##
##..... ##..... ....##. ##...## ##...##
##..... ######. ...##.. .#####. ##..###
.####.. ###..## ...##.. ##...## .######
..####. ##...## ..##... ##...## .....##
.....## ##...## ..##... ##...## .....##
##...## ###..## ..##... ##...## ....##.
.#####. .#####. ..##... .#####. .####..
....... ....... ....... ....... .......
....... ....... ....... ....... .......
"""


class LeNet5(nn.Module):
    """LeNet-5 as usually built today: full C3, plain pooling, a linear output; 61,706 parameters for ten classes.

    Attributes:
        activation: non-linearity after every layer except the last.
        negative_slope: leaky ReLU's slope below 0.
        initializer: initial weights; the biases start at 0.
        pooling: S2 and S4 take the maximum or the mean of each 2x2 window.
        norm: normalization between convolution and activation.
    """

    image_size: ClassVar[int] = 32

    num_classes: int
    activation: Activation = "relu"
    negative_slope: float = 0.01
    initializer: Initializer = "lecun_normal"
    pooling: Pooling = "max"
    norm: Norm = "none"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, train: bool = False, dropout_rate: Array | float = 0.0) -> Array:
        """Maps images `[batch, height, width, channels]`, designed for 32x32, to logits `[batch, num_classes]`."""
        init = INITIALIZERS[self.initializer]
        widened = functools.partial(units, self.activation)
        act = functools.partial(activate, kind=self.activation, negative_slope=self.negative_slope)
        x = images
        # These are C1 and S2, then C3 and S4.
        for features in (6, 16):
            x = nn.Conv(widened(features), (5, 5), padding="VALID", use_bias=self.norm == "none", kernel_init=init)(x)
            x = act(norm(self.norm, train, self.axis_name)(x))
            x = pool(x, self.pooling, window=2, stride=2)
        x = x.reshape(len(x), -1)
        # These are C5 and F6.
        for features in (120, 84):
            x = act(nn.Dense(widened(features), kernel_init=init)(x))
            x = Dropout(self.axis_name)(x, dropout_rate, train)
        return nn.Dense(self.num_classes, kernel_init=init)(x)


def _uniform(key: Array, shape: tuple[int, ...], dtype: Any, inputs: Any = None) -> Array:
    """Draws the paper's initial weights (appendix A): uniform in +-2.4 / F for a unit of F inputs; the biases start at 0."""
    bound = 2.4 / (math.prod(shape[:-1]) if inputs is None else inputs)
    return jax.random.uniform(key, shape, dtype, -bound, bound)


class LeNet5Of1998(nn.Module):
    """LeNet-5 as published: trainable subsampling, a sparse C3, fixed radial basis functions; 60,000 parameters on 32x32x1.

    Every layer up to F6, subsampling included, is followed by the squashing function (section II-B). The logits are minus the
    squared distances of F6 from the classes' codes, so that softmax cross-entropy is the paper's MAP criterion (equation 9)
    without its rubbish class.
    """

    image_size: ClassVar[int] = 32

    num_classes: int

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array:
        """Maps images `[batch, 32, 32, channels]` to logits `[batch, num_classes]`."""
        conv = functools.partial(nn.Conv, kernel_size=(5, 5), padding="VALID", kernel_init=_uniform)
        x = _squash(conv(6, name="C1")(images))
        x = _squash(Subsampling(name="S2")(x))
        x = _squash(SparseConv(name="C3")(x))
        x = _squash(Subsampling(name="S4")(x))
        x = _squash(conv(120, name="C5")(x))
        x = _squash(nn.Dense(84, kernel_init=_uniform, name="F6")(x.reshape(len(x), -1)))
        # bfloat16 would round distances around 100 to multiples of 0.5.
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return -jnp.sum((x[:, None] - jnp.asarray(codes(self.num_classes), x.dtype)[None]) ** 2, axis=-1)


class Subsampling(nn.Module):
    """Sums each 2x2 window, multiplies the sum by the map's coefficient and adds the map's bias."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps `[batch, height, width, maps]` to `[batch, height // 2, width // 2, maps]`."""
        coefficient = self.param("coefficient", functools.partial(_uniform, inputs=4), x.shape[-1:], jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), x.shape[-1:], jnp.float32)
        coefficient, bias = (jnp.expand_dims(maps, (0, 1, 2)) for maps in (coefficient, bias))
        return 4 * pool(x, "average", window=2, stride=2) * coefficient + bias


class SparseConv(nn.Module):
    """C3: 16 maps of 5x5 windows, each over the maps of S2 that table I lists: 60 kernels and 16 biases."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps `[batch, height, width, 6]` to `[batch, height - 4, width - 4, 16]`."""
        seen, by = np.nonzero(C3_SEES)
        init = functools.partial(_uniform, inputs=25 * C3_SEES.sum(0)[by])
        kernels = self.param("kernel", init, (5, 5, 60), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (16,), jnp.float32)
        x, kernels, bias = promote_dtype(x, kernels, bias)
        dense = jnp.zeros((5, 5, 6, 16), x.dtype).at[:, :, seen, by].set(kernels, unique_indices=True)
        maps = jax.lax.conv_general_dilated(x, dense, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return maps + jnp.expand_dims(bias, (0, 1, 2))


def _squash(x: Array) -> Array:
    """Returns the scaled hyperbolic tangent of appendix A: squash(1) = 1 and squash(-1) = -1."""
    return 1.7159 * jnp.tanh(2 / 3 * x)


def codes(num_classes: int) -> np.ndarray:
    """Returns the classes' codes `[num_classes, 84]` of +-1: figure 3 for ten classes, else random, the paper's alternative."""
    if num_classes != 10:
        return np.random.RandomState(0).choice([-1.0, 1.0], (num_classes, 84))
    # The bitmaps above stand in two rows of five digits.
    bitmaps = np.array(_FIGURE_3.split()).reshape(2, 12, 5).swapaxes(1, 2).reshape(10, 12)
    return np.array([[1.0 if pixel == "#" else -1.0 for pixel in "".join(rows)] for rows in bitmaps])
