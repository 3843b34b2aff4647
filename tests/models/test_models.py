"""The small models, and what all models have in common."""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import pytest
from helpers import some
from helpers.models import SMALL, count, filled, init

from percept_jax import models
from percept_jax.errors import UsageError
from percept_jax.experiment import KNOBS
from percept_jax.models import MODELS, build
from percept_jax.models.layers import Activation, Norm
from percept_jax.training.preflight import check_fits

ACTIVATIONS = get_args(Activation)


@pytest.mark.parametrize(
    ("name", "size", "parameters"),
    [
        ("linear", 28, 7_850),  # 784 x 10 + 10
        ("mlp", 28, 101_770),  # 784 x 128 + 128 + 128 x 10 + 10
        ("cnn", 28, 180_880),
        ("lenet5", 32, 61_706),
        ("lenet5_1998", 32, 60_000),
    ],
)
def test_parameters_are_those_of_the_literature(name, size, parameters):
    images = jnp.zeros((1, size, size, 1))
    assert count(jax.eval_shape(build(name, num_classes=10).init, jax.random.key(0), images)) == parameters


@pytest.mark.parametrize("name", some(SMALL, "linear", "mlp", "lenet5", "connectivity"))
def test_every_small_model_maps_images_to_logits_and_learns_everywhere(name):
    module, variables, images = init(name, channels=3)
    logits = module.apply(variables, images, train=False)
    assert logits.shape == (2, 10)
    weights = jnp.arange(20.0).reshape(2, 10)
    params = variables["params"]
    grads = jax.jit(jax.grad(lambda p: jnp.sum(weights * module.apply({**variables, "params": p}, images))))(params)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.isfinite(grad).all(), path
        assert jnp.abs(grad).max() > 0, path


@pytest.mark.parametrize("name", MODELS)
def test_every_knob_is_documented_and_clashes_with_no_flag_of_all_runs(name):
    for knob in models.knobs(name):
        assert knob.help, f"{name}'s docstring says nothing of {knob.name}"
        assert knob.name not in KNOBS


@pytest.mark.parametrize("name", some(["cnn", "lenet5"], "lenet5"))
def test_normalization_and_pooling_are_those_asked_for(name):
    outputs = {float(m.apply(v, x)[0, 0]) for kind in get_args(Norm) for m, v, x in [filled(name, norm=kind)]}
    assert len(outputs) == 4
    outputs = {float(m.apply(v, x)[0, 0]) for kind in ("max", "average") for m, v, x in [filled(name, pooling=kind)]}
    assert len(outputs) == 2


@pytest.mark.parametrize(
    "name", some([name for name in SMALL if "activation" in {k.name for k in models.knobs(name)}], "mlp", "connectivity")
)
def test_every_activation_makes_another_network_of_the_same_output(name):
    outputs = []
    for knobs in [{"activation": a} for a in ACTIVATIONS] + [{"activation": "leaky_relu", "negative_slope": -0.5}]:
        module, variables, images = filled(name, **knobs)
        outputs.append(module.apply(variables, images))
        assert outputs[-1].shape == (2, 10)
        assert jnp.isfinite(outputs[-1]).all()
    assert len({float(logits[0, 0]) for logits in outputs}) == len(outputs)


@pytest.mark.slow
def test_the_cnn_drops_units_of_its_hidden_layer():
    module, variables, images = filled("cnn", hidden=64)

    def logits(rate):
        rngs = {"dropout": jax.random.key(0)}
        return module.apply(variables, images, train=True, dropout_rate=rate, rngs=rngs, mutable=["batch_stats"])[0]

    assert not (logits(0.0) == logits(0.5)).any()


def test_an_unknown_model_or_knob_or_value_is_refused_with_what_was_meant():
    with pytest.raises(UsageError, match="did you mean 'lenet5'"):
        build("lenet", num_classes=10)
    with pytest.raises(UsageError, match=r"a flag of mlp, cnn.*, not of linear"):
        build("linear", num_classes=10, hidden=(3,))
    with pytest.raises(UsageError, match=r"a flag of alexnet, alexnet_single_tower, vgg11 and \d+ more, not of mlp"):
        build("mlp", num_classes=10, stem="small")
    with pytest.raises(UsageError, match=r"--hidden: 0 is outside \[1, 1000000\]"):
        build("mlp", num_classes=10, hidden=(0,))
    with pytest.raises(UsageError, match="--norm: unknown name 'bach'; did you mean 'batch'"):
        build("lenet5", num_classes=10, norm="bach")


def test_an_image_that_is_too_small_is_refused():
    with pytest.raises(UsageError, match="image_size: lenet5 cannot take images of 8 pixels a side; it takes 32"):
        check_fits("lenet5", {}, (8, 8, 1), 10)
    check_fits("lenet5", {}, (28, 28, 1), 10)
    with pytest.raises(UsageError, match="image_size: vgg11 cannot take images of 28 pixels a side; it takes 32"):
        check_fits("vgg11", {"stem": "small"}, (28, 28, 3), 10)
    with pytest.raises(UsageError, match="image_size: lenet5_1998 cannot take images of 28 pixels a side; it takes 32"):
        check_fits("lenet5_1998", {}, (28, 28, 1), 10)


def test_a_partial_gives_a_model_other_defaults(monkeypatch):
    import functools

    monkeypatch.setitem(MODELS, "mlp_deep", functools.partial(models.MLP, hidden=(32, 32)))
    assert {k.name: k.default for k in models.knobs("mlp_deep")}["hidden"] == (32, 32)
    assert build("mlp_deep", num_classes=10).hidden == (32, 32)
    assert build("mlp_deep", num_classes=10, hidden=(4,)).hidden == (4,)
    assert dataclasses.is_dataclass(models.module_class("mlp_deep"))


def test_knobs_that_leave_nothing_of_an_image_are_refused():
    for name, values in (("vgg11", {"stem": "small", "stages": (1,) * 6}), ("alexnet", {"stem": "small", "pool_window": 9})):
        said = f"image_size: {name} cannot take images of 32 pixels a side; at least not with these settings"
        with pytest.raises(UsageError, match=said):
            check_fits(name, values, (32, 32, 3), 10)
