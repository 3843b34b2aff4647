import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from percept_jax.experiment import Experiment, stack_hparams
from percept_jax.training.optim import OPTIMIZERS, SCHEDULES, learning_rate


def hparams(steps=100, **values):
    return jax.tree.map(lambda x: x[0], stack_hparams([Experiment(dtype="float64", steps=steps, **values)], steps))


def rate(schedule, step, h):
    with jax.enable_x64(True):
        return float(learning_rate(SCHEDULES[schedule], jnp.int32(step), h))


@settings(deadline=None)
@given(st.integers(0, 99), st.integers(0, 99))
def test_warm_up_rises_linearly_then_the_schedule_takes_over(step, warmup):
    h = hparams(learning_rate=0.5, warmup_steps=warmup)
    rise = min(1, (step + 1) / max(1, warmup))
    done = max(0, step - warmup) / (100 - warmup)
    assert rate("constant", step, h) == pytest.approx(0.5 * rise)
    assert rate("cosine", step, h) == pytest.approx(0.5 * rise * (1 + math.cos(math.pi * done)) / 2)


def test_cosine_is_optax_s():
    ours = [rate("cosine", k, hparams(learning_rate=0.1)) for k in range(100)]
    np.testing.assert_allclose(ours, [optax.cosine_decay_schedule(0.1, 100)(k) for k in range(100)], atol=1e-8)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_sgd_is_its_recurrence(name):
    with jax.enable_x64(True):
        check_recurrence(name)


def check_recurrence(name):
    """v <- m v + g + wd w (kernels); w <- w - lr v, or for Nesterov w - lr (m v + g + wd w)."""
    h = hparams(momentum=0.9, weight_decay=0.1)
    params = {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([3.0])}
    grads = {"kernel": jnp.array([0.5, 0.25]), "bias": jnp.array([-1.0])}
    w, v = jax.tree.map(np.asarray, params), {"kernel": np.zeros(2), "bias": np.zeros(1)}
    optimizer = OPTIMIZERS[name](jnp.float64(0.2), h)
    state = optimizer.init(params)
    for _ in range(5):
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        for leaf, decay in (("kernel", 0.1), ("bias", 0.0)):
            g = np.asarray(grads[leaf]) + decay * w[leaf]
            v[leaf] = 0.9 * v[leaf] + g
            w[leaf] = w[leaf] - 0.2 * (0.9 * v[leaf] + g if name == "nesterov" else v[leaf])
    for leaf in w:
        np.testing.assert_allclose(params[leaf], w[leaf], rtol=1e-12)
