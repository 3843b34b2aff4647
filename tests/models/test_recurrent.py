"""Recurrent networks: their formulas, and what they learn."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import some
from helpers.recurrent import CELLS, EACH, SEQ2SEQ, filled, leaves, normal, run

from percept_jax import models
from percept_jax.errors import UsageError
from percept_jax.models import build


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("rnn", 4 * 7 + 7 * 7 + 7),
        ("mgu", 2 * (4 * 7 + 7 * 7 + 7) + 7),  # the candidate's state has a bias of its own, as in GRU
        ("gru", 3 * (4 * 7 + 7 * 7 + 7) + 7),
        ("lstm", 4 * (4 * 7 + 7 * 7 + 7)),
    ],
)
def test_a_layer_has_the_parameters_of_its_gates_and_lies_under_its_name(name, parameters):
    def count(**knobs):
        module = build(name, num_classes=3, hidden=(7,), **knobs)
        return module, jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((2, 6, 4)))["params"]

    params = count()[1]
    assert set(params) == {"layer0", "head"}
    assert sum(leaf.size for leaf in jax.tree.leaves(params["layer0"])) == parameters
    assert params["head"]["kernel"].shape == (7, 3)
    both = count(bidirectional=True)[1]
    assert set(both) == {"layer0", "layer0_reverse", "head"}
    assert jax.tree.map(jnp.shape, both["layer0_reverse"]) == jax.tree.map(jnp.shape, params["layer0"])
    assert both["head"]["kernel"].shape == (14, 3)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def affine(params, x):
    return x @ params["kernel"] + params.get("bias", 0)


def one_step(name, params, carry, x):
    """The cell's formulas: a carry (c, h) and an input to the next carry."""
    p, (c, h) = params, carry
    if name == "rnn":
        return c, np.tanh(affine(p["i"], x) + affine(p["h"], h))
    if name == "mgu":
        f = sigmoid(affine(p["if"], x) + affine(p["hf"], h))
        return c, (1 - f) * np.tanh(affine(p["in"], x) + f * affine(p["hn"], h)) + f * h
    if name == "gru":
        r, z = (sigmoid(affine(p[f"i{gate}"], x) + affine(p[f"h{gate}"], h)) for gate in "rz")
        return c, (1 - z) * np.tanh(affine(p["in"], x) + r * affine(p["hn"], h)) + z * h
    i, f, g, o = (affine(p[f"i{gate}"], x) + affine(p[f"h{gate}"], h) for gate in "ifgo")
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return c, sigmoid(o) * np.tanh(c)


def looped(name, params, x, units):
    """A layer as a loop over steps, `[batch, time, features]` to `[batch, time, units]`, and its last carry."""
    carry, outputs = (np.zeros((len(x), units)), np.zeros((len(x), units))), []
    for step in x.swapaxes(0, 1):
        carry = one_step(name, params, carry, step)
        outputs.append(carry[1])
    return np.stack(outputs, 1), carry


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_computes_its_formulas(name):
    with jax.enable_x64(True):
        x = normal((2, 9, 4)).astype(np.float64)
        module, variables = filled(name, x, bidirectional=True, **EACH)
        p = jax.tree.map(np.asarray, variables["params"])
        forward = looped(name, p["layer0"], x, 5)[0]
        backward = looped(name, p["layer0_reverse"], x[:, ::-1], 5)[0][:, ::-1]
        y = run(module, variables, x)
        assert y.dtype == jnp.float64
        np.testing.assert_allclose(y, affine(p["head"], np.concatenate([forward, backward], -1)), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", SEQ2SEQ)
@pytest.mark.parametrize("values", [False, True])
def test_a_decoder_is_fed_with_what_it_has_written(name, values):
    with jax.enable_x64(True):
        x = normal((2, 6, 3)).astype(np.float64)
        module, variables = filled(name, x, values=values, output_steps=4)
        p, cell = jax.tree.map(np.asarray, variables["params"]), name.split("_")[0]
        carry, outputs = looped(cell, p["encoder0"], x, 5)[1], []
        fed = x[:, -1] if values else np.zeros((2, 3))
        for _ in range(4):
            carry = one_step(cell, p["decoder0"], carry, fed if values else affine(p["feedback"], fed))
            outputs.append(affine(p["head"], carry[1]))
            fed = outputs[-1] if values else np.exp(outputs[-1]) / np.exp(outputs[-1]).sum(-1, keepdims=True)
        np.testing.assert_allclose(run(module, variables, x), np.stack(outputs, 1), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", some(["mgu", "lstm", "gru_seq2seq", "rnn"], "mgu"))
def test_biases_and_kernels_start_as_the_knobs_say(name, monkeypatch):
    monkeypatch.setitem(models.recurrent.INITIALIZERS, "normal", lambda key, shape, dtype: jnp.full(shape, 7, dtype))
    module = build(name, num_classes=3, hidden=(5, 4), forget_bias=2.5, initializer="normal")
    forget = {"lstm": ("hf", "bias"), "mgu": ("if", "bias")}.get(name.split("_")[0])
    recurrent = 0
    for layer, gates in jax.jit(module.init)(jax.random.key(0), jnp.ones((2, 6, 5)))["params"].items():
        for path, leaf in leaves(gates):
            if "bias" in path:
                expected = 2.5 if forget and path == f"['{forget[0]}']['bias']" else 0
                np.testing.assert_array_equal(leaf, np.full(leaf.shape, expected), err_msg=path)
            elif path.startswith("['h"):
                np.testing.assert_allclose(leaf.T @ leaf, np.eye(len(leaf)), atol=1e-5)
                recurrent += 1
            else:
                assert (leaf == 7).all(), (layer, path)
    assert recurrent == {"rnn": 1, "mgu": 2, "gru": 3, "lstm": 4}[name.split("_")[0]] * (2 if name in CELLS else 4)


def test_the_initial_forget_bias_is_a_parameter_like_any_other():
    x = normal((2, 6, 4))
    module = build("lstm", num_classes=3, hidden=(5,))
    variables = jax.jit(module.init)(jax.random.key(0), x)
    moved = jax.tree.map(lambda p: p, variables)
    moved["params"]["layer0"]["hf"]["bias"] = jnp.zeros(5)
    assert not np.allclose(run(module, variables, x), run(module, moved, x))
    zero = build("lstm", num_classes=3, hidden=(5,), forget_bias=0.0)
    np.testing.assert_array_equal(run(zero, variables, x), run(module, variables, x))  # it is nowhere but there


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("gru", {}),
        pytest.param("lstm", {"truncation": 3}, marks=pytest.mark.slow),
        *(pytest.param(name, {}, marks=pytest.mark.slow) for name in ("rnn", "mgu", "lstm")),
    ],
)
def test_a_sequence_goes_on_from_the_carry(name, knobs):
    tokens = np.arange(20, dtype=np.int32).reshape(2, 10) % 7
    module, variables = filled(name, tokens, num_classes=7, hidden=(5, 4), vocabulary=7, output_steps=10, **knobs)
    assert list(variables) == ["params"]
    whole = run(module, variables, tokens)
    go_on = jax.jit(lambda v, tokens, lengths=None: module.apply(v, tokens, lengths=lengths, mutable=["carry"]))
    for sizes in ((4, 6), (1,) * 10):
        state, parts, at = {}, [], 0
        for size in sizes:
            y, state = go_on({**variables, **state}, tokens[:, at : at + size])
            parts.append(y)
            at += size
        np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=1e-5, atol=1e-6)
    lengths = np.array([4, 9], np.int32)
    _, state = go_on(variables, tokens, lengths)  # that of the last real step
    y, _ = go_on({**variables, **state}, tokens[:, 9:])
    np.testing.assert_allclose(y[1], whole[1, 9:], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_an_image_is_read_by_rows_or_pixels_and_in_one_fixed_order():
    images = normal((2, 4, 6, 3))
    for reading, shape in [("rows", (2, 4, 18)), ("pixels", (2, 24, 3))]:
        module, variables = filled("gru", images, reading=reading, output_steps=1)
        flat, order = images.reshape(shape), np.random.RandomState(0).permutation(shape[1])
        y = run(module, variables, images)
        assert y.shape == (*shape[:2], 3)
        np.testing.assert_array_equal(y, run(module, variables, flat))
        permuted = build("gru", num_classes=3, hidden=(5,), reading=reading, permute=True, output_steps=1)
        np.testing.assert_array_equal(run(permuted, variables, images), run(module, variables, flat[:, order]))


@pytest.mark.slow
def test_what_the_last_step_is_to_each_direction():
    x, lengths = normal((3, 9, 4)), np.array([9, 1, 4], np.int32)
    each, variables = filled("lstm", x, bidirectional=True, num_classes=10, **EACH)
    variables["params"]["head"] = {"kernel": jnp.eye(10), "bias": jnp.zeros(10)}  # outputs are states
    states = np.asarray(run(each, variables, x, lengths=lengths))
    last, mean = (build("lstm", num_classes=10, hidden=(5,), bidirectional=True, summary=s) for s in ("last", "mean"))
    expected = np.concatenate([states[np.arange(3), lengths - 1, :5], states[:, 0, 5:]], -1)
    np.testing.assert_allclose(run(last, variables, x, lengths=lengths), expected, rtol=1e-6)
    expected = [row[:length].mean(0) for row, length in zip(states, lengths, strict=True)]
    np.testing.assert_allclose(run(mean, variables, x, lengths=lengths), expected, rtol=1e-5, atol=1e-7)
    full = np.full(3, 9, np.int32)
    for module in (last, mean):
        np.testing.assert_allclose(run(module, variables, x), run(module, variables, x, lengths=full), rtol=1e-5, atol=1e-7)


def dropping(module, variables, x, key=0, **arguments):
    apply = jax.jit(lambda v, x, key, a: module.apply(v, x, train=True, dropout_rate=0.5, rngs={"dropout": key}, **a))
    return apply(variables, x, jax.random.key(key), arguments)


@pytest.mark.slow
def test_dropout_drops_the_same_units_at_every_step_whatever_the_padding():
    x = normal((4, 9, 3))
    module, variables = filled("rnn", x, hidden=(16,), num_classes=16, **EACH)
    variables["params"]["head"] = {"kernel": jnp.eye(16), "bias": jnp.zeros(16)}
    states, dropped = run(module, variables, x), dropping(module, variables, x)
    kept = np.asarray(dropped != 0)
    assert (kept == kept[:, :1]).all()
    assert 0.2 < kept[:, 0].mean() < 0.8
    assert len({row.tobytes() for row in kept[:, 0]}) == 4  # each sequence its own
    np.testing.assert_allclose(dropped, np.where(kept, 2 * states, 0), rtol=1e-6)
    longer = np.concatenate([x, np.zeros((4, 6, 3), np.float32)], 1)
    lengths = np.full(4, 9, np.int32)
    np.testing.assert_array_equal(dropping(module, variables, longer, lengths=lengths)[:, :9], dropped)
    two, variables = filled("gru_seq2seq", x, hidden=(16, 8), output_steps=3)
    y = dropping(two, variables, x)
    np.testing.assert_array_equal(dropping(two, variables, longer, lengths=lengths), y)
    assert not np.allclose(y, dropping(two, variables, x, key=1))


@pytest.mark.slow
def test_shards_of_a_batch_and_trials_of_a_pack_compute_what_one_does_alone():
    x = normal((4, 5, 3))
    module, variables = filled("lstm", x, hidden=(6, 5))
    split = build("lstm", num_classes=3, hidden=(6, 5), axis_name="batch")
    shards = jax.pmap(lambda x: dropping(split, variables, x), axis_name="batch", devices=jax.devices()[:2])
    np.testing.assert_allclose(shards(x.reshape(2, 2, 5, 3)).reshape(4, 3), dropping(module, variables, x), rtol=1e-5, atol=1e-6)
    lengths = np.array([5, 2, 1, 3], np.int32)
    for name, knobs in [("gru", {"bidirectional": True}), ("gru_seq2seq", {"output_steps": 3})]:
        module, first = filled(name, x, **knobs)
        trials = [first, filled(name, x, key=1, **knobs)[1]]
        pack = jax.jit(jax.vmap(lambda v, module=module: module.apply(v, x, lengths=lengths)))
        packed = pack(jax.tree.map(lambda *p: np.stack(p), *trials))
        for ours, alone in zip(packed, trials, strict=True):
            np.testing.assert_allclose(ours, run(module, alone, x, lengths=lengths), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
@pytest.mark.parametrize("name", some([*CELLS, *SEQ2SEQ], "gru", "lstm_seq2seq"))
def test_the_arithmetic_is_that_of_parameters_and_inputs(name, dtype):
    with jax.enable_x64(dtype == jnp.float64), jax.numpy_dtype_promotion("strict"):
        x = jnp.asarray(normal((2, 5, 3)), dtype)
        more = {"bidirectional": True} if name in CELLS else {"output_steps": 2}
        module, variables = filled(name, x, truncation=2, **more)
        lengths = jnp.array([5, 2], jnp.int32)
        y, grads = jax.eval_shape(jax.value_and_grad(lambda v: dropping(module, v, x, lengths=lengths).sum()), variables)
        assert {leaf.dtype for leaf in jax.tree.leaves((y, grads))} == {jnp.dtype(dtype)}
        tokens = jnp.zeros((2, 5), jnp.int32)
        module = build(name, num_classes=3, vocabulary=7)
        shapes = jax.eval_shape(module.init, jax.random.key(0), tokens)
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), shapes)
        y = jax.eval_shape(lambda v: module.apply(v, tokens, mutable=["carry"]), shapes)
        assert {leaf.dtype for leaf in jax.tree.leaves(y)} == {jnp.dtype(dtype)}


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("mgu", "gru", "lstm", "lstm_seq2seq")]


@pytest.mark.parametrize("name", ["rnn", pytest.param("gru_seq2seq", marks=pytest.mark.slow), *SLOW])
def test_a_small_batch_is_learned(name):
    x, lengths = normal((8, 7, 3)), np.array([7, 3, 5, 7, 2, 6, 4, 7], np.int32)
    labels = np.arange(8) % 2 if name in CELLS else (np.arange(8)[:, None] // np.array([1, 2])) % 2
    module = build(name, num_classes=2, hidden=(16,), output_steps=None if name in CELLS else 2)
    optimizer = optax.adam(0.03)

    @jax.jit
    def learn(key):
        def objective(variables):
            return optax.softmax_cross_entropy_with_integer_labels(module.apply(variables, x, lengths=lengths), labels).mean()

        def step(state, _):
            loss, grads = jax.value_and_grad(objective)(state[0])
            updates, opt_state = optimizer.update(grads, state[1])
            return (optax.apply_updates(state[0], updates), opt_state), loss

        variables = module.init(key, x)
        return jax.lax.scan(step, (variables, optimizer.init(variables)), length=30)[1]

    losses = learn(jax.random.key(0))
    assert losses[-1] < 0.5 * losses[0]


def test_the_steps_of_truncation_are_a_number_of_at_least_1_or_never():
    assert build("lstm", num_classes=3, truncation=5).truncation == 5
    assert build("lstm", num_classes=3, truncation="never").truncation == "never"
    for wrong in (0, "always", 1.5):
        with pytest.raises(UsageError, match="truncation"):
            build("lstm", num_classes=3, truncation=wrong)
    with pytest.raises(UsageError, match="a flag of rnn, mgu, gru and 3 more, not of mlp"):
        build("mlp", num_classes=3, truncation=5)


def test_what_takes_sequences_says_so():
    assert models.takes_sequences(models.module_class("lstm"))
    assert models.takes_sequences(build("gru_seq2seq", num_classes=3))
    assert not models.takes_sequences(models.module_class("mlp"))
    knobs = {knob.name for knob in models.knobs("lstm_seq2seq")}
    assert not knobs & {"cell", "output_steps", "vocabulary", "values", "num_classes"}
    assert isinstance(build("lstm", num_classes=3).cell(4), nn.OptimizedLSTMCell)
