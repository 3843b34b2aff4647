import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from percept_jax.experiment import Experiment, stack_hparams
from percept_jax.training.optim import OPTIMIZERS, SCHEDULES, learning_rate, make_optimizer


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
