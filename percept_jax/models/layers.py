"""Layers and options that several model families share."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

Pointwise = Literal["sigmoid", "tanh", "relu", "leaky_relu", "elu", "softplus"]
Activation = Literal[Pointwise, "maxout"]
Initializer = Literal[
    "lecun_normal",
    "lecun_uniform",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "orthogonal",
    "normal",
    "zeros",
]
Pooling = Literal["max", "average"]
Norm = Literal["none", "batch", "layer", "group"]
Conv = Literal["plain", "weight_standardized", "separable"]
Stem = Literal["imagenet", "small"]

INITIALIZERS: dict[str, nn.initializers.Initializer] = {
    # This is the default of Flax, and of most models here.
    "lecun_normal": nn.initializers.lecun_normal(),
    "lecun_uniform": nn.initializers.lecun_uniform(),
    "glorot_normal": nn.initializers.glorot_normal(),
    "glorot_uniform": nn.initializers.glorot_uniform(),
    "he_normal": nn.initializers.he_normal(),
    "he_uniform": nn.initializers.he_uniform(),
    "orthogonal": nn.initializers.orthogonal(),
    "normal": nn.initializers.normal(0.01),
    "zeros": nn.initializers.zeros_init(),
}


def units(kind: Activation, features: int) -> int:
    """Returns the units that a layer needs for `features` after its non-linearity: twice as many for maxout."""
    return 2 * features if kind == "maxout" else features


def activate(x: Array, kind: Activation, negative_slope: float) -> Array:
    """Applies a non-linearity, given by name, `[..., units]` to `[..., features]`; `negative_slope` is leaky ReLU's.

    Maxout (Goodfellow et al. 2013, arXiv:1302.4389) returns the larger of two linear pieces: unit i of the first and of the
    second half of the units.
    """
    if kind == "maxout":
        return _larger(*jnp.split(x, 2, axis=-1))
    if kind == "leaky_relu":
        return nn.leaky_relu(x, negative_slope)
    return getattr(nn, kind)(x)


def pool(x: Array, kind: Pooling, window: int, stride: int, padding: int = 0, ceil: bool = False) -> Array:
    """Returns the maximum or the mean of square windows of `[batch, height, width, channels]`.

    It is taken over strided slices. The values are those of Flax's pooling, but the gradient has no select-and-scatter, which
    does not run under deterministic GPU operations (github.com/google/flax/issues/4233). The gradient of a maximum goes to one
    of equal values.

    Args:
        x: the feature maps.
        kind: the maximum or the mean of each window.
        window: rows and columns of a window.
        stride: the distance between windows.
        padding: rows and columns added on each side: ignored by a maximum, zeros for a mean.
        ceil: whether the last window may extend over the edge, as with PyTorch's `ceil_mode` of max pooling.
    """
    sizes = x.shape[1:3]
    counts = [(size + 2 * padding - window + (stride - 1 if ceil else 0)) // stride + 1 for size in sizes]
    # The last window must start in the image or in the padding before it.
    if ceil:
        counts = [n - 1 if (n - 1) * stride >= size + padding else n for n, size in zip(counts, sizes, strict=True)]
    if min(counts) < 1:
        raise ValueError(f"maps of {sizes[0]}x{sizes[1]} have no window of {window}x{window}")
    if padding or ceil:
        ends = [max(0, (n - 1) * stride + window - padding - size) for n, size in zip(counts, sizes, strict=True)]
        filling = -jnp.inf if kind == "max" else 0.0
        x = jnp.pad(x, ((0, 0), (padding, ends[0]), (padding, ends[1]), (0, 0)), constant_values=filling)
    rows, columns = counts
    slices = [
        x[:, i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride]
        for i in range(window)
        for j in range(window)
    ]
    if kind == "max":
        return functools.reduce(_larger, slices)
    return functools.reduce(jnp.add, slices) / window**2


def _larger(a: Array, b: Array) -> Array:
    """Returns the larger of each pair, or NaN if either is NaN.

    The gradient of `jnp.maximum` compares the result with the arguments. If XLA recomputes these with other rounding, neither is
    equal and the gradient is lost. After batch norm and ReLU this changed LeNet-5's parameters by up to 2e-3 in one step, in
    float64 too, and differently on 2 devices.
    """
    return jnp.where((a >= b) | jnp.isnan(a), a, b)


def norm(
    kind: Norm | Literal["lrn"],
    train: bool,
    axis_name: str | None,
    *,
    name: str | None = None,
    epsilon: float = 1e-5,
    scale_init: nn.initializers.Initializer = nn.initializers.ones,
) -> Callable[[Array], Array]:
    """Returns a normalization layer, given by name, to be called once; `epsilon` is added to variances.

    Batch norm (Ioffe and Szegedy 2015, arXiv:1502.03167) takes its statistics over all devices of `axis_name`; its running
    averages decay by 0.9 a step. Group norm (Wu and He 2018, arXiv:1803.08494) has the most groups, 32 at most, that divide the
    channels; layer norm is one group.
    """
    if kind == "none":
        return lambda x: x
    if kind == "lrn":
        return local_response_norm
    shared = {"epsilon": epsilon, "scale_init": scale_init, "name": name}
    if kind == "batch":
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, axis_name=axis_name, **shared)

    def grouped(x: Array) -> Array:
        groups = 1 if kind == "layer" else max(n for n in range(1, 33) if x.shape[-1] % n == 0)
        return nn.GroupNorm(groups, **shared)(x)

    return grouped


def local_response_norm(x: Array, k: float = 2, n: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> Array:
    """Returns `x / (k + alpha * the sum of n neighboring channels' squares) ** beta` (Krizhevsky et al. 2012).

    PyTorch divides that sum by n, so its alpha of 5e-4 is 1e-4 here. Beyond the first and the last channel neighbors count as 0.
    """
    # In bfloat16, adding the sum to k would round most of it away.
    promoted = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    squares = jnp.pad(promoted**2, [(0, 0)] * (x.ndim - 1) + [(n // 2, n // 2)])
    neighbors = functools.reduce(jnp.add, (squares[..., i : i + x.shape[-1]] for i in range(n // 2 * 2 + 1)))
    return (promoted * (k + alpha * neighbors) ** -beta).astype(x.dtype)


def conv(
    kind: Conv, features: int, window: int, stride: int = 1, padding: int | None = None, *, first: bool = False, **fields: Any
) -> Callable[[Array], Array]:
    """Returns a convolution over square windows, given by name, to be called once.

    It is padded by half a window on each side, as in published networks; Flax's SAME pads one side only if the stride is 2. A
    separable convolution (Chollet 2017, arXiv:1610.02357) is a depthwise one, then one of 1x1. It stays plain for 1x1 windows,
    where there is nothing to separate, and in a network's first layer, which would see each color through one window only.

    Args:
        kind: plain, weight_standardized (Qiao et al. 2019, arXiv:1903.10520; needs a norm after it) or separable.
        features: maps of the result.
        window: rows and columns of a window.
        stride: the distance between windows.
        padding: rows and columns of zeros on each side; None: half a window.
        first: whether this is the network's first layer.
        **fields: further fields of nn.Conv, including its name.
    """
    padding = window // 2 if padding is None else padding
    if kind == "weight_standardized":
        fields["conv_general_dilated"] = _standardized
    if kind != "separable" or window == 1 or first:
        return nn.Conv(features, (window, window), stride, padding, **fields)

    def separable(x: Array) -> Array:
        over_maps = {"feature_group_count": x.shape[-1], "use_bias": False, "name": f"{fields['name']}_depthwise"}
        # The default initializer preserves the variance.
        x = nn.Conv(x.shape[-1], (window, window), stride, padding, **over_maps)(x)
        return nn.Conv(features, (1, 1), **{**fields, "name": f"{fields['name']}_pointwise"})(x)

    return separable


def _standardized(x: Array, kernel: Array, *args: Any, **kwargs: Any) -> Array:
    """Returns a convolution with kernels standardized to mean 0 and variance 1 over the inputs of each map."""
    promoted = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))
    kernel = jax.nn.standardize(promoted, axis=(0, 1, 2), epsilon=1e-5).astype(kernel.dtype)
    return jax.lax.conv_general_dilated(x, kernel, *args, **kwargs)


class Parts(NamedTuple):
    """The layers that an ablation replaces throughout a network.

    Attributes:
        conv: `conv` of the chosen kind, with a bias only if no norm follows.
        norm: `norm` of the chosen kind.
        act: the non-linearity.
    """

    conv: Callable[..., Callable[[Array], Array]]
    norm: Callable[..., Callable[[Array], Array]]
    act: Callable[[Array], Array]


def parts(network: nn.Module, train: bool, epsilon: float = 1e-5) -> Parts:
    """Returns the parts that a network's fields `conv`, `norm`, `activation`, `negative_slope` and `initializer` choose."""
    init = INITIALIZERS[network.initializer]
    return Parts(
        functools.partial(conv, network.conv, use_bias=network.norm == "none", kernel_init=init),
        functools.partial(norm, network.norm, train, network.axis_name, epsilon=epsilon),
        functools.partial(activate, kind=network.activation, negative_slope=network.negative_slope),
    )


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) with a traced rate and a mask for each example.

    Each mask is drawn from the example's position in the global batch, so it does not depend on the number of devices. Masks
    are drawn in float32 whatever the dtype of the input, and not at all while the rate is 0.

    Attributes:
        axis_name: the mapped axis over which the batch is split; None: it is not split.
    """

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, rate: Array | float, train: bool) -> Array:
        """Returns `x [batch, ...]` with values set to 0 with probability `rate` in [0, 1), and the rest divided by 1 - rate."""
        if not train or (isinstance(rate, float) and rate == 0):
            return x
        shard = jax.lax.axis_index(self.axis_name) if self.axis_name else 0
        positions = shard * len(x) + jnp.arange(len(x))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(self.make_rng("dropout"), positions)

        def drop(x: Array) -> Array:
            draws = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:], jnp.float32))(keys)
            return jnp.where(draws >= jnp.float32(rate), x / jnp.asarray(1 - rate, x.dtype), 0)

        return jax.lax.cond(rate > 0, drop, lambda x: x, x)
