"""Padding changes nothing, and truncation cuts gradients only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import some
from helpers.recurrent import CELLS, EACH, SEQ2SEQ, filled, leaves, normal, run

from percept_jax.models import build

pytestmark = pytest.mark.strict_dtypes


LENGTHS = np.array([29, 1, 17, 8], np.int32)


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("lstm", {"bidirectional": True, "hidden": (6, 5), "output_steps": 29}),
        pytest.param("gru", {"bidirectional": True, "summary": "mean"}, marks=pytest.mark.slow),
        pytest.param("rnn", {"bidirectional": True, "truncation": 4}, marks=pytest.mark.slow),
        pytest.param("lstm", {"bidirectional": True, "hidden": (6, 5)}, marks=pytest.mark.slow),
        pytest.param("lstm_seq2seq", {"output_steps": 4, "hidden": (6, 5)}, marks=pytest.mark.slow),
        pytest.param("gru_seq2seq", {"output_steps": 4, "values": True}, marks=pytest.mark.slow),
    ],
)
def test_padding_changes_no_output_at_a_real_step_and_no_gradient(name, knobs):
    x = normal((4, 29, 3))
    module, variables = filled(name, x, **knobs)
    each = name == "lstm" and "output_steps" in knobs
    real = np.arange(29) < LENGTHS[:, None]

    @jax.jit
    def slopes(params, x):
        def objective(params, x):
            y = module.apply(params, x, lengths=LENGTHS)
            y = jnp.where(real[..., None], y[:, :29], 0) if each else y
            return jnp.sum(y * normal(y.shape, 1)), y

        (_, y), grads = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)(params, x)
        return y, grads

    garbage = np.full((4, 64, 3), 1e30, np.float32) * np.where(np.arange(64) % 2, 1, -1)[:, None].astype(np.float32)
    garbage[:, :29] = np.where(real[..., None], x, garbage[:, :29])
    padded = {29: np.where(real[..., None], x, 0), 64: garbage}
    (short, short_grads), (long, long_grads) = (slopes(variables, padded[size]) for size in (29, 64))
    if knobs.get("summary") == "mean":  # XLA sums more than 32 steps in another order
        np.testing.assert_allclose(short, long, rtol=1e-6, atol=1e-7)
    else:
        np.testing.assert_array_equal(short, long)
    for (path, a), (_, b) in zip(leaves(short_grads[0]), leaves(long_grads[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=path)
    np.testing.assert_allclose(long_grads[1][:, :29], short_grads[1], rtol=1e-5, atol=1e-6)
    assert not np.asarray(long_grads[1])[:, 29:].any()
    if not each:  # as a sequence by itself, without lengths
        np.testing.assert_allclose(short[2], run(module, variables, x[2:3, :17])[0], rtol=1e-5, atol=1e-6)


def test_what_a_token_of_padding_is_does_not_matter():
    tokens = np.array([[1, 4, 2, 0], [3, 99, -7, 50]], np.int32)
    module, variables = filled("lstm", tokens, vocabulary=5, summary="mean")
    lengths = np.array([4, 1], np.int32)
    y, alone = run(module, variables, tokens, lengths=lengths), run(module, variables, tokens[1:, :1])
    assert jnp.isfinite(y).all()
    np.testing.assert_allclose(y[1:], alone, rtol=1e-6)


@pytest.mark.parametrize("name", some([*CELLS, *SEQ2SEQ], "gru", "lstm_seq2seq"))
def test_every_parameter_learns(name):
    tokens = np.arange(20, dtype=np.int32).reshape(2, 10) % 7
    more = {"bidirectional": True} if name in CELLS else {}
    module, variables = filled(name, tokens, vocabulary=7, output_steps=10, **more)
    weights = normal((2, 10, 3))
    grads = jax.jit(jax.grad(lambda v: jnp.sum(weights * module.apply(v, tokens))))(variables)
    for path, grad in leaves(grads):
        assert jnp.isfinite(grad).all(), path
        assert jnp.abs(grad).max() > 0, path


@pytest.mark.slow
def test_truncation_cuts_gradients_and_no_outputs():
    x = normal((2, 9, 3))  # cut before steps 0, 4 and 8
    whole, variables = filled("gru", x, hidden=(5, 4), **EACH)
    cut = build("gru", num_classes=3, hidden=(5, 4), truncation=4, **EACH)
    np.testing.assert_array_equal(run(cut, variables, x), run(whole, variables, x))

    def slopes(module, step, x):
        return np.asarray(jax.jit(jax.grad(lambda x: module.apply(variables, x)[:, step].sum()))(x))

    within = slopes(cut, 6, x)
    assert not within[:, :4].any()
    assert np.abs(within[:, 4:7]).min() > 0
    np.testing.assert_allclose(within[:, 4:], slopes(whole, 6, x)[:, 4:], rtol=1e-6, atol=1e-8)
    assert not slopes(cut, 8, x)[:, :8].any()
    assert slopes(whole, 8, x)[:, 0].any()


def test_truncation_counts_from_the_end_backwards():
    x = normal((1, 6, 3))
    module, variables = filled("gru", x, bidirectional=True, truncation=4, output_steps=6)
    grad = jax.jit(jax.grad(lambda x: module.apply(variables, x)[:, 1].sum()))(x)
    assert [bool(step.any()) for step in np.asarray(grad)[0]] == [True, True, False, False, False, False]
