import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import some
from hypothesis import given, settings
from hypothesis import strategies as st

from percept_jax.errors import UsageError
from percept_jax.experiment import Experiment, stack_hparams
from percept_jax.training.optim import (
    OPTIMIZERS,
    SCHEDULES,
    check_patterns,
    clip,
    frozen,
    learning_rate,
    make_optimizer,
    matches,
    scales,
)


def hparams(steps=100, **values):
    return jax.tree.map(lambda x: x[0], stack_hparams([Experiment(dtype="float64", steps=steps, **values)], steps))


def rate(schedule, step, h):
    with jax.enable_x64(True):
        return float(learning_rate(SCHEDULES[schedule], (0.5, 0.75), jnp.int32(step), h))


@settings(deadline=None)
@given(st.integers(0, 99), st.integers(0, 99))
def test_warm_up_rises_linearly_then_the_schedule_takes_over(step, warmup):
    h = hparams(learning_rate=0.5, warmup_steps=warmup)
    rise = min(1, (step + 1) / max(1, warmup))
    done = max(0, step - warmup) / (100 - warmup)
    assert rate("constant", step, h) == pytest.approx(0.5 * rise)
    assert rate("cosine", step, h) == pytest.approx(0.5 * rise * (1 + math.cos(math.pi * done)) / 2)
    assert rate("exponential", step, h) == pytest.approx(0.5 * rise * 0.1**done)
    assert rate("step", step, h) == pytest.approx(0.5 * rise * 0.1 ** ((done >= 0.5) + (done >= 0.75)))


def test_cosine_is_optax_s():
    ours = [rate("cosine", k, hparams(learning_rate=0.1)) for k in range(100)]
    np.testing.assert_allclose(ours, [optax.cosine_decay_schedule(0.1, 100)(k) for k in range(100)], atol=1e-8)


def by_hand(name, g, w, memory, k, lr, b1, b2, eps, wd):
    """One update of one leaf by the papers' recurrences; `wd` is 0 for a bias."""
    m, v = memory
    if name != "adamw":
        g = g + wd * w
    if name in ("sgd", "nesterov"):
        m = b1 * m + g
        return w - lr * (b1 * m + g if name == "nesterov" else m), (m, v)
    v = b2 * v + (1 - b2) * g**2
    root = np.sqrt(v / (1 - b2**k)) + eps
    if name == "rmsprop":
        m = b1 * m + g / root
        return w - lr * m, (m, v)
    m = b1 * m + (1 - b1) * g
    move = m / (1 - b1**k) / root
    return w - lr * (move + (wd * w if name == "adamw" else 0)), (m, v)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_its_recurrence(name):
    """Over ten steps of changing gradients, weight decay on the kernel only."""
    with jax.enable_x64(True):
        h = hparams(momentum=0.9, beta2=0.99, epsilon=1e-3, weight_decay=0.1)
        params = {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([3.0])}
        w, memory = jax.tree.map(np.asarray, params), {"kernel": (0, 0), "bias": (0, 0)}
        optimizer = make_optimizer(name, jnp.float64(0.2), h)
        state = optimizer.init(params)
        for k in range(1, 11):
            grads = {"kernel": jnp.array([math.sin(k), 0.25]), "bias": jnp.array([-1.0 / k])}
            updates, state = optimizer.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            for leaf, wd in (("kernel", 0.1), ("bias", 0.0)):
                g = np.asarray(grads[leaf])
                w[leaf], memory[leaf] = by_hand(name, g, w[leaf], memory[leaf], k, 0.2, 0.9, 0.99, 1e-3, wd)
                np.testing.assert_allclose(params[leaf], w[leaf], rtol=1e-6)  # h holds float32's 0.9 and 0.99


@pytest.mark.parametrize(("limit", "length"), [(1.0, 1.0), (5.0, 5.0), (20.0, 13.0), (0.0, 13.0)])
def test_clipping_shortens_a_gradient_and_keeps_its_direction(limit, length):
    with jax.enable_x64(True):
        grads = {"kernel": jnp.array([3.0, 4.0]), "bias": jnp.array([12.0])}  # of norm 13
        optimizer = make_optimizer("sgd", jnp.float64(1.0), hparams(clip_norm=limit))
        updates, _ = optimizer.update(grads, optimizer.init(grads), grads)
        for leaf in grads:
            np.testing.assert_allclose(updates[leaf], -grads[leaf] * length / 13, rtol=1e-12)


PATHS = ("conv1/kernel", "layer1_0/conv1/kernel", "layer1_0/conv1/bias", "fc6/bias")


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("*", "conv1/kernel layer1_0/conv1/kernel layer1_0/conv1/bias fc6/bias"),
        ("conv*", "conv1/kernel"),
        ("conv1", "conv1/kernel"),
        ("onv1", ""),
        ("Conv1", ""),
        ("layer1_0", "layer1_0/conv1/kernel layer1_0/conv1/bias"),
        ("layer1", ""),
        ("layer[12]_?", "layer1_0/conv1/kernel layer1_0/conv1/bias"),
        ("*/conv1", "layer1_0/conv1/kernel layer1_0/conv1/bias"),
        ("*/kernel", "conv1/kernel layer1_0/conv1/kernel"),
        ("layer1_0/conv1/bias", "layer1_0/conv1/bias"),
        ("layer1_0/", ""),
    ],
)
def test_a_pattern_matches_a_whole_path_or_what_lies_below_a_layer(pattern, matched):
    assert [path for path in PATHS if matches(path, pattern)] == matched.split()


def layers(seed):
    """A network's parameters of random values, float64."""
    draw = np.random.default_rng(seed).normal
    shapes = {"conv1": (3, 2), "conv2": (2, 4), "head": (4, 2)}
    return {name: {"kernel": jnp.asarray(draw(size=s)), "bias": jnp.asarray(draw(size=s[1]))} for name, s in shapes.items()}


def trained(name, h, steps=3, **options):
    """Parameters before and after some steps of gradients that fall on every leaf."""
    params = first = layers(0)
    optimizer = make_optimizer(name, jnp.float64(0.1), h, **options)
    state = optimizer.init(params)
    for k in range(steps):
        updates, state = jax.jit(optimizer.update)(layers(k + 1), state, params)
        params = optax.apply_updates(params, updates)
    return first, params, state


@pytest.mark.parametrize("name", some(OPTIMIZERS, "sgd", "adam"))
def test_frozen_leaves_keep_their_bits_and_the_others_move_as_if_those_were_not_there(name):
    with jax.enable_x64(True):
        h = hparams(momentum=0.9, weight_decay=0.1, clip_norm=1.0)
        first, params, state = trained(name, h, freeze="conv1, */bias")
        for path, before in jax.tree_util.tree_leaves_with_path(first):
            after = params[path[0].key][path[1].key]
            still = path[0].key == "conv1" or path[1].key == "bias"
            assert np.array_equal(before, after) == still, path
            assert still or not (before == after).any(), path
        alone = {layer: {"kernel": first[layer]["kernel"]} for layer in ("conv2", "head")}
        optimizer = make_optimizer(name, jnp.float64(0.1), h)
        memory = optimizer.init(alone)
        assert sum(leaf.size for leaf in jax.tree.leaves(memory)) == sum(leaf.size for leaf in jax.tree.leaves(state))
        for k in range(3):
            grads = {layer: {"kernel": layers(k + 1)[layer]["kernel"]} for layer in alone}
            updates, memory = optimizer.update(grads, memory, alone)
            alone = optax.apply_updates(alone, updates)
        for layer in alone:
            np.testing.assert_allclose(params[layer]["kernel"], alone[layer]["kernel"], rtol=1e-12)


@pytest.mark.parametrize("name", some(OPTIMIZERS, "sgd", "adam"))
def test_a_factor_scales_a_layer_s_whole_update_and_0_stops_it(name):
    with jax.enable_x64(True):
        h = hparams(weight_decay=0.1)
        first, plain, _ = trained(name, h, steps=1)
        _, params, _ = trained(name, h, steps=1, lr_scale="head=10,conv*=0.5,conv1=0")
        for layer, factor in (("conv1", 0), ("conv2", 0.5), ("head", 10)):  # the last match counts
            for leaf in ("kernel", "bias"):
                move = factor * (plain[layer][leaf] - first[layer][leaf])
                np.testing.assert_allclose(params[layer][leaf] - first[layer][leaf], move, rtol=1e-9)
        np.testing.assert_array_equal(trained(name, h, lr_scale="conv1=0")[1]["conv1"]["kernel"], first["conv1"]["kernel"])
        both = trained(name, h, freeze="conv1", lr_scale="head=10")[1]
        np.testing.assert_array_equal(both["conv1"]["kernel"], first["conv1"]["kernel"])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_patterns_the_optimizer_is_the_plain_chain(name):
    """In state and in operations: results that were measured depend on its bits."""
    h, rate = hparams(weight_decay=0.1, clip_norm=1.0), np.float32(0.1)
    plain = optax.chain(clip(h), OPTIMIZERS[name](h), optax.scale_by_learning_rate(rate))
    params = layers(0)
    programs = []
    for optimizer in (plain, make_optimizer(name, rate, h), make_optimizer(name, rate, h, "", "")):
        state = optimizer.init(params)
        programs.append((jax.tree.structure(state), str(jax.make_jaxpr(optimizer.update)(layers(1), state, params))))
    assert programs[0] == programs[1] == programs[2]


def test_masks_follow_the_patterns_over_any_tree():
    statistics = {"bn1": {"mean": 0, "var": 0}, "layer1_0": {"bn1": {"mean": 0}}}
    assert frozen(statistics, "bn*") == {"bn1": {"mean": True, "var": True}, "layer1_0": {"bn1": {"mean": False}}}
    assert frozen(statistics, "") == jax.tree.map(bool, statistics)
    assert scales(statistics, "*=2, */mean = 3") == {"bn1": {"mean": 3, "var": 2}, "layer1_0": {"bn1": {"mean": 3}}}


@pytest.mark.parametrize(
    ("freeze", "lr_scale", "message"),
    [
        ("conv*,hed", "", "--freeze: 'hed' matches no parameter; there are head"),
        ("", "stem=2", "--lr_scale: 'stem' matches no parameter; there are conv1, conv2, head"),
        ("conv1,,conv2", "", "--freeze: 'conv1,,conv2' has an empty item: nothing between two commas, or at one end"),
        (",", "", "--freeze: ',' has an empty item"),
        ("", "head", "--lr_scale: 'head' is not of the form PATTERN=FACTOR with a factor of 0 or more"),
        ("", "=2", "--lr_scale: '=2' is not"),
        ("", "conv1=1,head=ten", "--lr_scale: 'head=ten' is not"),
        ("", "head=-1", "--lr_scale: 'head=-1' is not"),
        ("", "head=inf", "--lr_scale: 'head=inf' is not"),
        ("", "head=nan", "--lr_scale: 'head=nan' is not"),
        ("", "head=1,", "--lr_scale: 'head=1,' has an empty item"),
        ("*", "", "--freeze: no parameter is left to train"),
        ("", "*=0", "--lr_scale: no parameter is left to train"),
        ("conv*", "head=0", "--freeze: no parameter is left to train"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(freeze, lr_scale, message):
    with pytest.raises(UsageError) as error:
        check_patterns(layers(0), freeze, lr_scale)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(("freeze", "lr_scale"), [("", ""), ("conv*", "head=10"), ("conv1/kernel", "*=0,head=1")])
def test_patterns_that_match_are_taken(freeze, lr_scale):
    check_patterns(jax.eval_shape(lambda: layers(0)), freeze, lr_scale)
