import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from percept_jax import models
from percept_jax.errors import UsageError
from percept_jax.experiment import KNOBS
from percept_jax.models import MODELS, build
from percept_jax.models.layers import ACTIVATIONS, Dropout, norm, pool


def count(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def init(name, size=None, channels=1, **knobs):
    size = size or models.wanted_image_size(name) or 8
    module = build(name, num_classes=10, **knobs)
    images = jnp.linspace(-1, 1, 2 * size * size * channels).reshape(2, size, size, channels)
    return module, module.init(jax.random.key(0), images), images


@pytest.mark.parametrize(
    ("name", "size", "parameters"),
    [("lenet5", 32, 61_706), ("linear", 28, 7_850), ("mlp", 28, 101_770)],  # 784 x 10 + 10; 784 x 128 + 128 + 128 x 10 + 10
)
def test_parameters_are_those_of_the_literature(name, size, parameters):
    assert count(init(name, size)[1]) == parameters


@pytest.mark.parametrize("name", MODELS)
def test_every_model_maps_images_to_logits_and_learns_everywhere(name):
    module, variables, images = init(name, channels=3)
    logits = module.apply(variables, images, train=False)
    assert logits.shape == (2, 10)
    weights = jnp.arange(20.0).reshape(2, 10)
    grads = jax.grad(lambda p: jnp.sum(weights * module.apply({**variables, "params": p}, images)))(variables["params"])
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.isfinite(grad).all(), path
        assert jnp.abs(grad).max() > 0, path


@pytest.mark.parametrize("name", MODELS)
def test_every_knob_is_documented_and_clashes_with_no_flag_of_all_runs(name):
    for knob in models.knobs(name):
        assert knob.help, f"{name}'s docstring says nothing of {knob.name}"
        assert knob.name not in KNOBS


def test_lenet5_uses_the_knobs_it_is_given():
    shapes = {str(jax.tree.map(jnp.shape, init("lenet5", norm=kind)[1])) for kind in ("none", "batch")}
    assert len(shapes) == 2
    outputs = {
        float(module.apply(variables, images)[0, 0])
        for activation in ACTIVATIONS
        for pooling in ("max", "average")
        for module, variables, images in [init("lenet5", activation=activation, pooling=pooling)]
    }
    assert len(outputs) == 2 * len(ACTIVATIONS)


def test_an_unknown_model_or_knob_or_value_is_refused_with_what_was_meant():
    with pytest.raises(UsageError, match="did you mean 'lenet5'"):
        build("lenet", num_classes=10)
    with pytest.raises(UsageError, match="a knob of mlp, not of linear"):
        build("linear", num_classes=10, hidden=(3,))
    with pytest.raises(UsageError, match=r"--hidden: 0 is outside \[1, inf\)"):
        build("mlp", num_classes=10, hidden=(0,))
    with pytest.raises(UsageError, match="--norm: unknown name 'bach'; did you mean 'batch'"):
        build("lenet5", num_classes=10, norm="bach")


def test_an_image_that_is_too_small_is_refused():
    with pytest.raises(UsageError, match="image_size: lenet5 cannot take images of 8 pixels a side; it wants 32"):
        models.check_fits("lenet5", {}, (8, 8, 1), 10)
    models.check_fits("lenet5", {}, (28, 28, 1), 10)


@pytest.mark.parametrize(("window", "stride", "size"), [(2, 2, 8), (3, 2, 9), (3, 2, 8), (2, 1, 5), (3, 3, 11)])
@pytest.mark.parametrize("kind", ["max", "average"])
def test_pooling_has_flax_s_value_and_away_from_ties_its_gradient(kind, window, stride, size):
    x = jax.random.normal(jax.random.key(1), (2, size, size, 3))
    theirs = nn.max_pool if kind == "max" else nn.avg_pool
    flax, flax_vjp = jax.vjp(lambda x: theirs(x, (window, window), (stride, stride)), x)
    ours, vjp = jax.vjp(lambda x: pool(x, kind, window, stride), x)
    np.testing.assert_allclose(ours, flax, rtol=1e-6)
    weights = jax.random.normal(jax.random.key(2), ours.shape)
    np.testing.assert_allclose(vjp(weights)[0], flax_vjp(weights)[0], rtol=1e-6, atol=1e-7)


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


def test_batch_norm_normalises_the_batch_and_keeps_a_tenth_of_it():
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


def test_a_partial_gives_a_model_other_defaults(monkeypatch):
    import functools

    monkeypatch.setitem(MODELS, "mlp_deep", functools.partial(models.MLP, hidden=(32, 32)))
    assert {k.name: k.default for k in models.knobs("mlp_deep")}["hidden"] == (32, 32)
    assert build("mlp_deep", num_classes=10).hidden == (32, 32)
    assert build("mlp_deep", num_classes=10, hidden=(4,)).hidden == (4,)
    assert dataclasses.is_dataclass(models.module_class("mlp_deep"))
