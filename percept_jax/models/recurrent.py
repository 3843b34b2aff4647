"""Recurrent networks over sequences, and over images that are read as such: Flax's cells, stacked.

A sequence's padding, whatever it holds, changes neither the outputs at its real steps nor any gradient. (How much of it there is
changes the rounding of a mean over steps.)
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from percept_jax.errors import UsageError
from percept_jax.models.layers import INITIALIZERS, Dropout, Initializer

Truncation = int | Literal["never"]
Reading = Literal["rows", "pixels"]


class Recurrent(nn.Module):
    """A recurrent network: stacked cells, in one direction or both (Schuster and Paliwal 1997), and a linear output.

    The cells are Elman's (1990), MGU (Zhou et al. 2016, arXiv:1603.09420), GRU (Cho et al. 2014, arXiv:1406.1078) and LSTM
    (Hochreiter and Schmidhuber 1997). Where the collection "carry" is mutable, the layers of a network in one direction start
    from the states that it holds, zeros where there are none, and leave their last: so is a text written on.

    Attributes:
        cell: the class of the cells.
        output_steps: None: an output an example; else one a step of the input.
        vocabulary: how many different tokens there are where the input is such; else 0.
        hidden: units of each layer.
        bidirectional: a second stack of cells reads from the end; each layer sees both of the one below.
        embedding: size of a token's vector, where the input is tokens.
        reading: how an image becomes a sequence: a row a step, or a pixel a step.
        permute: the steps of an image in one fixed random order ("permuted sequential MNIST"), not from the top left.
        summary: what one output an example is made from: each direction's last step, or the mean over steps.
        truncation: steps after which back-propagation through time is cut; the state goes on, its gradient does not.
        forget_bias: initial bias of LSTM's and MGU's forget gates (Jozefowicz et al. 2015); other cells have none.
        recurrent_initializer: initial weights from a layer's state to itself.
        initializer: other initial weights; the other biases start at 0.
    """

    num_classes: int
    cell: type[nn.RNNCellBase]
    output_steps: int | None = None
    vocabulary: int = 0
    hidden: tuple[int, ...] = (128,)
    bidirectional: bool = False
    embedding: int = 64
    reading: Reading = "rows"
    permute: bool = False
    summary: Literal["last", "mean"] = "last"
    truncation: Truncation = "never"
    forget_bias: float = 1.0
    recurrent_initializer: Initializer = "orthogonal"
    initializer: Initializer = "lecun_normal"
    axis_name: str | None = None

    def __post_init__(self) -> None:
        _check_layers(self.hidden)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, train: bool = False, dropout_rate: Array | float = 0.0, lengths: Array | None = None) -> Array:
        """Sequences to logits, or values, `[batch, num_classes]`, or `[batch, time, num_classes]` with `output_steps`.

        Args:
            x: images `[batch, height, width, channels]`, values `[batch, time, features]` or whole numbers `[batch, time]`.
            train: whether to drop.
            dropout_rate: share of the features dropped behind each layer, the same ones at every step of a sequence (Gal and
                Ghahramani 2016, arXiv:1512.05287).
            lengths: real steps of each sequence, `[batch]`; None: all.
        """
        x, lengths = _sequence(self, x, lengths)
        goes_on = self.is_mutable_collection("carry") and not self.is_initializing()
        for i, features in enumerate(self.hidden):
            name = f"layer{i}"
            begin = self.get_variable("carry", name) if goes_on else None
            layer = nn.RNN(_cell(self, features, x.dtype, name), return_carry=goes_on)
            y: Any = layer(x, initial_carry=begin, seq_lengths=lengths)
            if goes_on:
                carry, y = y
                self.put_variable("carry", name, carry)
            if self.bidirectional:
                back = nn.RNN(_cell(self, features, x.dtype, f"{name}_reverse"), reverse=True, keep_order=True)
                other: Any = back(x, seq_lengths=lengths)
                y = jnp.concatenate([y, other], axis=-1)
            x = y * _mask(self, y, dropout_rate, train)[:, None]
        x = x if self.output_steps else self._summary(x, lengths)
        return nn.Dense(self.num_classes, kernel_init=INITIALIZERS[self.initializer], name="head")(x)

    def _summary(self, y: Array, lengths: Array | None) -> Array:
        """The last layer's outputs `[batch, time, features]` to `[batch, features]`."""
        if self.summary == "mean":
            if lengths is None:
                return y.mean(1)
            real = jnp.arange(y.shape[1])[None] < lengths[:, None]
            return jnp.where(real[..., None], y, 0).sum(1) / jnp.maximum(1, lengths)[:, None].astype(y.dtype)
        # A step that both directions have come to last.
        forward, backward = _last(y, lengths), y[:, 0]
        features = self.hidden[-1]
        return jnp.concatenate([forward[:, :features], backward[:, features:]], axis=-1)


class EncoderDecoder(nn.Module):
    """Sequence to sequence (Cho et al. 2014, arXiv:1406.1078; Sutskever et al. 2014, arXiv:1409.3215): read all, then write.

    One stack of cells reads the input, a second one starts from its states and writes, each step from its own output before:
    the values, or the classes' probabilities. It does so in training too: nothing is fed to it that it will not have in use.

    Attributes:
        cell: the class of the cells.
        output_steps: outputs to write; None: one.
        vocabulary: how many different tokens there are where the input is such; else 0.
        values: whether the outputs are values, or logits.
        hidden: units of each layer.
        embedding: size of a token's vector, where the input or the output is tokens or classes.
        reading: how an image becomes a sequence: a row a step, or a pixel a step.
        permute: the steps of an image in one fixed random order, not from the top left.
        truncation: steps after which back-propagation through time is cut; the state goes on, its gradient does not.
        forget_bias: initial bias of LSTM's forget gates (Jozefowicz et al. 2015); other cells have none.
        recurrent_initializer: initial weights from a layer's state to itself.
        initializer: other initial weights; the other biases start at 0.
    """

    num_classes: int
    cell: type[nn.RNNCellBase]
    output_steps: int | None = None
    vocabulary: int = 0
    values: bool = False
    hidden: tuple[int, ...] = (128,)
    embedding: int = 64
    reading: Reading = "rows"
    permute: bool = False
    truncation: Truncation = "never"
    forget_bias: float = 1.0
    recurrent_initializer: Initializer = "orthogonal"
    initializer: Initializer = "lecun_normal"
    axis_name: str | None = None

    def __post_init__(self) -> None:
        _check_layers(self.hidden)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, train: bool = False, dropout_rate: Array | float = 0.0, lengths: Array | None = None) -> Array:
        """Sequences, as `Recurrent` takes them, to logits or values `[batch, output_steps, num_classes]`."""
        x, lengths = _sequence(self, x, lengths)
        # A series goes on from its last value.
        follows = self.values and x.shape[-1] == self.num_classes
        first = _last(x, lengths) if follows else jnp.zeros((len(x), self.num_classes), x.dtype)
        carries, masks = [], []
        for i, features in enumerate(self.hidden):
            encoder = nn.RNN(_cell(self, features, x.dtype, f"encoder{i}"), return_carry=True)
            carry, y = encoder(x, seq_lengths=lengths)
            x = y * _mask(self, y, dropout_rate, train)[:, None]
            carries.append(carry)
            masks.append(_mask(self, y, dropout_rate, train))
        init = INITIALIZERS[self.initializer]

        def write(self: nn.Module, state: tuple[list[Any], Array], _: None) -> tuple[tuple[list[Any], Array], Array]:
            """One step: from the cells' carries and what is fed to them to the same, and the output."""
            carries, x = state
            x = x if self.values else nn.Dense(self.embedding, use_bias=False, kernel_init=init, name="feedback")(x)
            after = []
            for i, (features, carry, mask) in enumerate(zip(self.hidden, carries, masks, strict=True)):
                carry, x = _cell(self, features, x.dtype, f"decoder{i}")(carry, x)
                x = x * mask
                after.append(carry)
            y = nn.Dense(self.num_classes, kernel_init=init, name="head")(x)
            return (after, y if self.values else nn.softmax(y)), y

        shared = {"variable_broadcast": "params", "split_rngs": {"params": False}}
        return nn.scan(write, **shared, out_axes=1, length=self.output_steps or 1)(self, (carries, first), None)[1]


class LSTMCell(nn.OptimizedLSTMCell):
    """Flax's, with an initial bias of its own for the forget gate, as Flax's MGUCell has.

    Attributes:
        forget_bias_init: initial bias of the forget gate.
    """

    forget_bias_init: nn.initializers.Initializer = nn.initializers.ones_init()

    @nn.compact
    def __call__(self, carry: tuple[Array, Array], inputs: Array) -> tuple[tuple[Array, Array], Array]:
        """One step of `[batch, features]`: the carry after it, and the output."""
        result = super().__call__(carry, inputs)
        # Flax has one initializer for all four biases.
        if self.is_initializing():
            gate = self.get_variable("params", "hf")
            bias = self.forget_bias_init(self.make_rng("params"), gate["bias"].shape, gate["bias"].dtype)
            self.put_variable("params", "hf", {**gate, "bias": bias})
        return result


class Truncated(nn.RNNCellBase):
    """A cell that no gradient passes every so many steps (Williams and Peng 1990); its carry counts them.

    Attributes:
        cell: the cell.
        steps: how many steps a gradient goes back at most.
    """

    cell: nn.RNNCellBase
    steps: int

    def __call__(self, carry: tuple[Array, Any], inputs: Array) -> tuple[tuple[Array, Any], Array]:
        """One step of `[batch, features]`: the carry after it, and the output."""
        count, inner = carry
        inner = jax.tree.map(lambda c: jnp.where(count % self.steps == 0, jax.lax.stop_gradient(c), c), inner)
        inner, y = self.cell(inner, inputs)
        return (count + 1, inner), y

    @nn.nowrap
    def initialize_carry(self, rng: Array, input_shape: tuple[int, ...]) -> tuple[Array, Any]:
        """A count of 0 `[batch, 1]`, and the cell's own carry."""
        return jnp.zeros((*input_shape[:-1], 1), jnp.int32), self.cell.initialize_carry(rng, input_shape)

    @property
    def num_feature_axes(self) -> int:
        """Axes of an input behind batch and time."""
        return 1


def _check_layers(hidden: tuple[int, ...]) -> None:
    if not hidden:
        raise UsageError("a recurrent network has a layer or more", "hidden")


def _cell(network: nn.Module, features: int, dtype: Any, name: str) -> nn.RNNCellBase:
    """A cell as a network's fields have it; its carry starts at zeros of `dtype`."""
    fields = {"kernel_init": INITIALIZERS[network.initializer]}
    if "forget_bias_init" in network.cell.__dataclass_fields__:
        fields["forget_bias_init"] = nn.initializers.constant(network.forget_bias)
    cell = network.cell(
        features,
        **fields,
        recurrent_kernel_init=INITIALIZERS[network.recurrent_initializer],
        carry_init=lambda key, shape, _: jnp.zeros(shape, dtype),
        name=name,
    )
    return cell if network.truncation == "never" else Truncated(cell, network.truncation)


def _sequence(network: nn.Module, x: Array, lengths: Array | None) -> tuple[Array, Array | None]:
    """What the first layer is given, `[batch, time, features]`, zeros where a sequence has ended; and the lengths."""
    if x.ndim == 4:
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height, -1) if network.reading == "rows" else x.reshape(batch, height * width, channels)
        x = x[:, np.random.RandomState(0).permutation(x.shape[1])] if network.permute else x
    if lengths is not None:
        # That of Flax's indices, 64 bits under x64.
        lengths = lengths.astype(int)
        real = jnp.arange(x.shape[1])[None] < lengths[:, None]
        x = jnp.where(real if x.ndim == 2 else real[..., None], x, 0)
    return nn.Embed(network.vocabulary, network.embedding, name="embed")(x) if network.vocabulary else x, lengths


def _mask(network: nn.Module, y: Array, dropout_rate: Array | float, train: bool) -> Array:
    """What outputs `[batch, time, features]` are multiplied with at every step, `[batch, features]`."""
    return Dropout(network.axis_name)(jnp.ones((len(y), y.shape[-1]), y.dtype), dropout_rate, train)


def _last(x: Array, lengths: Array | None) -> Array:
    """The last real step of `[batch, time, features]`."""
    return x[:, -1] if lengths is None else x[jnp.arange(len(x)), lengths - 1]
