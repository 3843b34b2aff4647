"""Recurrent networks of stacked Flax cells, over sequences and over images that are read as sequences.

The content of a sequence's padding changes neither the outputs at the real steps nor any gradient. (The amount of padding changes
the rounding of a mean over steps.)
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
    (Hochreiter and Schmidhuber 1997). If the collection "carry" is mutable, the layers of a unidirectional network start from the
    states in it (zeros if there are none) and store their last states: this is how a text prompt is continued.

    Attributes:
        cell: the class of the cells.
        output_steps: None: one output for each example; else one for each step of the input.
        vocabulary: the number of different tokens if the input is tokens; else 0.
        hidden: units of each layer.
        bidirectional: add cells that read from the end; each layer sees both directions of the one below.
        embedding: size of a token's vector, if the input is tokens.
        reading: how an image becomes a sequence: a row at each step, or a pixel at each step.
        permute: read the steps of an image in one fixed random order ("permuted sequential MNIST").
        summary: if there is one output for each example, it sees each direction's last step, or the mean over steps.
        truncation: steps after which back-propagation through time is cut; the state is kept, its gradient is not.
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
        """Maps sequences to logits or values, `[batch, num_classes]`, or `[batch, time, num_classes]` with `output_steps`.

        Args:
            x: images `[batch, height, width, channels]`, values `[batch, time, features]` or integers `[batch, time]`.
            train: whether dropout is on.
            dropout_rate: fraction of the features dropped after each layer, the same ones at every step of a sequence (Gal and
                Ghahramani 2016, arXiv:1512.05287).
            lengths: steps of each sequence that are not padding, `[batch]`; None: all.
        """
        x, lengths = _sequence(self, x, lengths)
        keeps_carry = self.is_mutable_collection("carry") and not self.is_initializing()
        for i, features in enumerate(self.hidden):
            name = f"layer{i}"
            initial_carry = self.get_variable("carry", name) if keeps_carry else None
            layer = nn.RNN(_cell(self, features, x.dtype, name), return_carry=keeps_carry)
            y: Any = layer(x, initial_carry=initial_carry, seq_lengths=lengths)
            if keeps_carry:
                carry, y = y
                self.put_variable("carry", name, carry)
            if self.bidirectional:
                reverse = nn.RNN(_cell(self, features, x.dtype, f"{name}_reverse"), reverse=True, keep_order=True)
                backward: Any = reverse(x, seq_lengths=lengths)
                y = jnp.concatenate([y, backward], axis=-1)
            x = y * _mask(self, y, dropout_rate, train)[:, None]
        x = x if self.output_steps else self._summary(x, lengths)
        return nn.Dense(self.num_classes, kernel_init=INITIALIZERS[self.initializer], name="head")(x)

    def _summary(self, y: Array, lengths: Array | None) -> Array:
        """Reduces the last layer's outputs `[batch, time, features]` to `[batch, features]`."""
        if self.summary == "mean":
            if lengths is None:
                return y.mean(1)
            is_step = jnp.arange(y.shape[1])[None] < lengths[:, None]
            return jnp.where(is_step[..., None], y, 0).sum(1) / jnp.maximum(1, lengths)[:, None].astype(y.dtype)
        # The backward direction reaches its last step at index 0.
        forward, backward = _last(y, lengths), y[:, 0]
        features = self.hidden[-1]
        return jnp.concatenate([forward[:, :features], backward[:, features:]], axis=-1)


class EncoderDecoder(nn.Module):
    """Encoder and decoder for sequence to sequence (Cho et al. 2014, arXiv:1406.1078; Sutskever et al. 2014, arXiv:1409.3215).

    One stack of cells, the encoder, reads the input. A second one, the decoder, starts from the encoder's states; at each step it
    is fed its own previous output: the values, or the classes' probabilities. There is no teacher forcing in training.

    Attributes:
        cell: the class of the cells.
        output_steps: time steps of the output; None: one.
        vocabulary: the number of different tokens if the input is tokens; else 0.
        values: whether the outputs are values rather than logits.
        hidden: units of each layer.
        embedding: size of a token's or a class's vector, if the input or the output is tokens or classes.
        reading: how an image becomes a sequence: a row at each step, or a pixel at each step.
        permute: read the steps of an image in one fixed random order.
        truncation: steps after which back-propagation through time is cut; the state is kept, its gradient is not.
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
        """Maps sequences, as `Recurrent` takes them, to logits or values `[batch, output_steps, num_classes]`."""
        x, lengths = _sequence(self, x, lengths)
        # The decoder of a series that is forecast starts from its last value.
        continues = self.values and x.shape[-1] == self.num_classes
        first = _last(x, lengths) if continues else jnp.zeros((len(x), self.num_classes), x.dtype)
        carries, masks = [], []
        for i, features in enumerate(self.hidden):
            encoder = nn.RNN(_cell(self, features, x.dtype, f"encoder{i}"), return_carry=True)
            carry, y = encoder(x, seq_lengths=lengths)
            x = y * _mask(self, y, dropout_rate, train)[:, None]
            carries.append(carry)
            masks.append(_mask(self, y, dropout_rate, train))
        init = INITIALIZERS[self.initializer]

        def write(self: nn.Module, state: tuple[list[Any], Array], _: None) -> tuple[tuple[list[Any], Array], Array]:
            """One step: maps the cells' carries and the previous output to the new ones, and returns the output."""
            carries, x = state
            x = x if self.values else nn.Dense(self.embedding, use_bias=False, kernel_init=init, name="feedback")(x)
            new_carries = []
            for i, (features, carry, mask) in enumerate(zip(self.hidden, carries, masks, strict=True)):
                carry, x = _cell(self, features, x.dtype, f"decoder{i}")(carry, x)
                x = x * mask
                new_carries.append(carry)
            y = nn.Dense(self.num_classes, kernel_init=init, name="head")(x)
            return (new_carries, y if self.values else nn.softmax(y)), y

        shared = {"variable_broadcast": "params", "split_rngs": {"params": False}}
        return nn.scan(write, **shared, out_axes=1, length=self.output_steps or 1)(self, (carries, first), None)[1]


class LSTMCell(nn.OptimizedLSTMCell):
    """Flax's LSTM cell with an initializer for the bias of the forget gate, as Flax's MGUCell has one.

    Attributes:
        forget_bias_init: initial bias of the forget gate.
    """

    forget_bias_init: nn.initializers.Initializer = nn.initializers.ones_init()

    @nn.compact
    def __call__(self, carry: tuple[Array, Array], inputs: Array) -> tuple[tuple[Array, Array], Array]:
        """Returns the new carry and the output of one step with inputs `[batch, features]`."""
        result = super().__call__(carry, inputs)
        # Flax has a single initializer for all four biases.
        if self.is_initializing():
            gate = self.get_variable("params", "hf")
            bias = self.forget_bias_init(self.make_rng("params"), gate["bias"].shape, gate["bias"].dtype)
            self.put_variable("params", "hf", {**gate, "bias": bias})
        return result


class Truncated(nn.RNNCellBase):
    """A cell whose gradient is cut after a number of steps (Williams and Peng 1990); its carry counts the steps.

    Attributes:
        cell: the cell.
        steps: the most steps that a gradient goes back.
    """

    cell: nn.RNNCellBase
    steps: int

    def __call__(self, carry: tuple[Array, Any], inputs: Array) -> tuple[tuple[Array, Any], Array]:
        """Returns the new carry and the output of one step with inputs `[batch, features]`."""
        count, inner = carry
        inner = jax.tree.map(lambda c: jnp.where(count % self.steps == 0, jax.lax.stop_gradient(c), c), inner)
        inner, y = self.cell(inner, inputs)
        return (count + 1, inner), y

    @nn.nowrap
    def initialize_carry(self, rng: Array, input_shape: tuple[int, ...]) -> tuple[Array, Any]:
        """Returns a count of 0 `[batch, 1]`, and the cell's own carry."""
        return jnp.zeros((*input_shape[:-1], 1), jnp.int32), self.cell.initialize_carry(rng, input_shape)

    @property
    def num_feature_axes(self) -> int:
        """The number of axes of an input after batch and time."""
        return 1


def _check_layers(hidden: tuple[int, ...]) -> None:
    if not hidden:
        raise UsageError("a recurrent network needs at least one layer", "hidden")


def _cell(network: nn.Module, features: int, dtype: Any, name: str) -> nn.RNNCellBase:
    """Returns a cell as a network's fields define it; its carry starts at zeros of `dtype`."""
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
    """Returns the first layer's input `[batch, time, features]`, with zeros past a sequence's end, and the lengths."""
    if x.ndim == 4:
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height, -1) if network.reading == "rows" else x.reshape(batch, height * width, channels)
        x = x[:, np.random.RandomState(0).permutation(x.shape[1])] if network.permute else x
    if lengths is not None:
        # Flax's indices have this dtype, which is 64 bits under x64.
        lengths = lengths.astype(int)
        is_step = jnp.arange(x.shape[1])[None] < lengths[:, None]
        x = jnp.where(is_step if x.ndim == 2 else is_step[..., None], x, 0)
    return nn.Embed(network.vocabulary, network.embedding, name="embed")(x) if network.vocabulary else x, lengths


def _mask(network: nn.Module, y: Array, dropout_rate: Array | float, train: bool) -> Array:
    """Returns the dropout mask `[batch, features]` that multiplies outputs `[batch, time, features]` at every step."""
    return Dropout(network.axis_name)(jnp.ones((len(y), y.shape[-1]), y.dtype), dropout_rate, train)


def _last(x: Array, lengths: Array | None) -> Array:
    """Returns the last step of each sequence in `[batch, time, features]` that is not padding."""
    return x[:, -1] if lengths is None else x[jnp.arange(len(x)), lengths - 1]
