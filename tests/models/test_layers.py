"""Layers that several models share."""

from typing import get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import some
from helpers.models import CONNECTIVITIES, SMALL, init

from percept_jax import models
from percept_jax.models.layers import INITIALIZERS, Dropout, Initializer, activate, norm, pool

X = np.array([-3.0, -0.7, -0.2, 0.1, 0.9, 2.5])  # no kink of a non-linearity
Y = np.array([-1.0, -0.9, -0.1, 0.3, -0.2, 3.0])
SIGMOID = 1 / (1 + np.exp(-X))


@pytest.mark.parametrize(
    ("kind", "values", "slopes"),
    [
        ("sigmoid", SIGMOID, SIGMOID * (1 - SIGMOID)),
        ("tanh", np.tanh(X), 1 - np.tanh(X) ** 2),
        ("relu", np.where(X > 0, X, 0), np.where(X > 0, 1, 0)),
        ("leaky_relu", np.where(X > 0, X, 0.2 * X), np.where(X > 0, 1, 0.2)),
        ("elu", np.where(X > 0, X, np.exp(X) - 1), np.where(X > 0, 1, np.exp(X))),
        ("softplus", np.log(1 + np.exp(X)), SIGMOID),
        ("maxout", np.maximum(X, Y), np.where(X > Y, 1, 0)),
    ],
)
def test_activations_have_the_values_and_gradients_of_their_formulas(kind, values, slopes):
    with jax.enable_x64(True):
        x = np.concatenate([X, Y]) if kind == "maxout" else X
        ours, vjp = jax.vjp(lambda x: activate(x, kind, 0.2), jnp.asarray(x))
        gradient = vjp(jnp.ones_like(ours))[0]
        np.testing.assert_allclose(ours, values, rtol=1e-13)
        expected = np.concatenate([slopes, 1 - slopes]) if kind == "maxout" else slopes
        np.testing.assert_allclose(gradient, expected, rtol=1e-13, atol=1e-16)


IN, OUT = 256, 128
DEVIATIONS = {
    "lecun_normal": IN**-0.5,
    "lecun_uniform": IN**-0.5,
    "glorot_normal": (2 / (IN + OUT)) ** 0.5,
    "glorot_uniform": (2 / (IN + OUT)) ** 0.5,
    "he_normal": (2 / IN) ** 0.5,
    "he_uniform": (2 / IN) ** 0.5,
    "orthogonal": IN**-0.5,  # columns of length 1
    "normal": 0.01,
    "zeros": 0,
}


def test_initial_weights_have_the_deviation_that_their_name_says():
    drawn = {name: INITIALIZERS[name](jax.random.key(0), (IN, OUT)) for name in get_args(Initializer)}
    assert list(DEVIATIONS) == list(INITIALIZERS) == list(drawn)
    for name, kernel in drawn.items():
        assert float(kernel.std()) == pytest.approx(DEVIATIONS[name], rel=0.02), name  # 32,768 draws: a standard error of 0.004
    assert len({float(kernel[0, 0]) for kernel in drawn.values()}) == len(drawn)
    np.testing.assert_allclose(drawn["orthogonal"].T @ drawn["orthogonal"], np.eye(OUT), atol=1e-5)
    np.testing.assert_array_equal(drawn["lecun_normal"], nn.linear.default_kernel_init(jax.random.key(0), (IN, OUT)))


WITH_INITIALIZER = [name for name in SMALL if "initializer" in {k.name for k in models.knobs(name)}]


@pytest.mark.parametrize("name", some(WITH_INITIALIZER, "mlp", "lenet5"))
def test_the_initializer_sets_every_kernel_and_flax_s_is_the_default(name, monkeypatch):
    assert {k.name: k.default for k in models.knobs(name)}["initializer"] == "lecun_normal"
    monkeypatch.setitem(INITIALIZERS, "normal", lambda key, shape, dtype: jnp.full(shape, 7, dtype))
    for connectivity in CONNECTIVITIES if name == "connectivity" else (None,):
        knobs = {"initializer": "normal"} | ({"connectivity": connectivity} if connectivity else {})
        for path, leaf in jax.tree_util.tree_leaves_with_path(init(name, **knobs)[1]["params"]):
            if "scale" not in str(path):  # batch norm's
                assert (leaf == (7 if "kernel" in str(path) else 0)).all(), path


@pytest.mark.parametrize(
    ("window", "stride", "size"), some([(2, 2, 8), (3, 2, 9), (3, 2, 8), (2, 1, 5), (3, 3, 11)], (2, 2, 8), (3, 2, 8))
)
@pytest.mark.parametrize("kind", ["max", "average"])
def test_pooling_has_flax_s_value_and_away_from_ties_its_gradient(kind, window, stride, size):
    x = jax.random.normal(jax.random.key(1), (2, size, size, 3))
    theirs = nn.max_pool if kind == "max" else nn.avg_pool
    flax, flax_vjp = jax.vjp(lambda x: theirs(x, (window, window), (stride, stride)), x)
    ours, vjp = jax.vjp(lambda x: pool(x, kind, window, stride), x)
    # Processors add in different orders.
    np.testing.assert_allclose(ours, flax, rtol=1e-6, atol=1e-6)
    weights = jax.random.normal(jax.random.key(2), ours.shape)
    np.testing.assert_allclose(vjp(weights)[0], flax_vjp(weights)[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("window", "stride", "padding", "size"),
    some([(3, 2, 1, 8), (3, 1, 1, 5), (2, 2, 1, 7), (5, 3, 2, 9)], (3, 2, 1, 8), (5, 3, 2, 9)),
)
@pytest.mark.parametrize("kind", ["max", "average"])
def test_padded_pooling_has_flax_s_value_and_gradient(kind, window, stride, padding, size):
    x = jax.random.normal(jax.random.key(1), (2, size, size, 3)) - 2
    theirs, ends = nn.max_pool if kind == "max" else nn.avg_pool, ((padding, padding),) * 2
    flax, flax_vjp = jax.vjp(lambda x: theirs(x, (window, window), (stride, stride), ends), x)
    ours, vjp = jax.vjp(lambda x: pool(x, kind, window, stride, padding), x)
    np.testing.assert_allclose(ours, flax, rtol=1e-6)
    weights = jax.random.normal(jax.random.key(2), ours.shape)
    np.testing.assert_allclose(vjp(weights)[0], flax_vjp(weights)[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("window", "stride", "padding", "size", "first_rows"),  # first rows and sizes as torch.nn.MaxPool2d(ceil_mode=True) has them
    [
        (3, 2, 0, 8, (0, 2, 4, 6)),
        (3, 2, 0, 9, (0, 2, 4, 6)),
        (2, 2, 0, 7, (0, 2, 4, 6)),
        (2, 3, 0, 6, (0, 3)),
        (3, 3, 1, 6, (-1, 2, 5)),
    ],
)
def test_pooling_in_ceil_mode_keeps_a_last_window_that_starts_in_the_image(window, stride, padding, size, first_rows):
    x = np.random.default_rng(0).normal(size=(1, size, size, 2)).astype(np.float32) - 5
    rows = [slice(max(first, 0), first + window) for first in first_rows]
    expected = np.array([[x[0, a, b].max((0, 1)) for b in rows] for a in rows])
    np.testing.assert_array_equal(pool(jnp.asarray(x), "max", window, stride, padding, ceil=True)[0], expected)


@pytest.mark.parametrize("at", range(4))
def test_a_maximum_does_not_hide_what_is_not_a_number(at):
    x = jnp.arange(4.0).at[at].set(jnp.nan).reshape(1, 2, 2, 1)
    assert jnp.isnan(pool(x, "max", 2, 2)).all()


def dropped(x, rate, key=0):
    return Dropout().apply({}, x, jnp.float32(rate), True, rngs={"dropout": jax.random.key(key)})


def test_dropout_keeps_its_share_and_its_mean_and_is_the_identity_at_rate_0_and_in_evaluation():
    x = jnp.ones((64, 1000))
    y = dropped(x, 0.3)
    assert abs(float((y == 0).mean()) - 0.3) < 0.01  # 64,000 draws: a standard error of 0.0018
    np.testing.assert_allclose(y[y != 0], 1 / 0.7, rtol=1e-6)
    np.testing.assert_array_equal(dropped(x, 0.0), x)
    np.testing.assert_array_equal(Dropout().apply({}, x, 0.5, False), x)


def test_dropout_draws_by_example_whatever_the_batch_around_it():
    x = jnp.ones((8, 100))
    np.testing.assert_array_equal(dropped(x, 0.5)[:3], dropped(x[:3], 0.5))
    assert not (dropped(x, 0.5)[0] == dropped(x, 0.5)[1]).all()
    assert not (dropped(x, 0.5) == dropped(x, 0.5, key=1)).all()


def test_batch_norm_normalizes_the_batch_and_keeps_a_tenth_of_it():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return norm("batch", train, None)(x)

    x = 3 + 2 * jax.random.normal(jax.random.key(0), (1000, 4))
    variables = Net().init(jax.random.key(0), x)
    y, updated = Net().apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(0), 1, atol=1e-3)
    kept = jax.tree.leaves(updated["batch_stats"])[0]
    np.testing.assert_allclose(kept, 0.1 * x.mean(0), rtol=1e-5)
