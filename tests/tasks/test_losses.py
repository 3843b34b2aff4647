"""Gradients against the closed forms of the introductory lectures, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import some

from percept_jax.models import build
from percept_jax.tasks.losses import OBJECTIVES, quadratic

pytestmark = pytest.mark.strict_dtypes

OF_CLASSES = [name for name in OBJECTIVES if name != "squared_error"]


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_one_sigmoid_unit_under_quadratic_loss():
    """dC/dw = (a - y) a (1 - a) x and dC/db = (a - y) a (1 - a), for a = sigmoid(w.x + b) and C = (a - y)^2 / 2."""
    module = build("linear", num_classes=1)
    w, b, x, y = random(5, 1), random(1), random(1, 5, 1, 1, seed=1), np.array([[0.3]])

    def loss(params):
        return quadratic(module.apply({"params": {"Dense_0": params}}, x), y).sum()

    grads = jax.grad(loss)({"kernel": jnp.asarray(w), "bias": jnp.asarray(b)})
    a = sigmoid(x.ravel() @ w + b)
    delta = (a - y[0]) * a * (1 - a)
    np.testing.assert_allclose(grads["kernel"][:, 0], delta * x.ravel(), rtol=1e-6)
    np.testing.assert_allclose(grads["bias"], delta, rtol=1e-6)


@pytest.mark.parametrize("loss", some(["quadratic", "softmax_cross_entropy"], "quadratic"))
@pytest.mark.slow
def test_the_delta_recursion_of_back_propagation_through_an_mlp(loss):
    """delta^L = dC/da sigma'(z^L) (a - y for softmax), delta^l = (W^{l+1} delta^{l+1}) sigma'(z^l); dC/dW = a^{l-1} delta^l."""
    module = build("mlp", num_classes=4, hidden=(6, 5), activation="sigmoid")
    x, targets = random(3, 2, 2, 2, seed=1), np.eye(4)[[0, 2, 1]]
    shapes = module.init(jax.random.key(0), jnp.zeros(x.shape, jnp.float32))["params"]
    params = jax.tree.map(lambda p: jnp.asarray(random(*p.shape, seed=p.size)), shapes)
    grads = jax.grad(lambda p: OBJECTIVES[loss].loss(module.apply({"params": p}, x), targets).sum())(params)

    layers = [params[f"Dense_{i}"] for i in range(3)]
    activations, a = [x.reshape(3, -1)], x.reshape(3, -1)
    for layer in layers:
        z = a @ layer["kernel"] + layer["bias"][None]
        a = sigmoid(z)
        activations.append(a)
    if loss == "quadratic":
        delta = (a - targets) * a * (1 - a)
    else:
        shares = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        delta = shares - targets
    for i in (2, 1, 0):
        np.testing.assert_allclose(grads[f"Dense_{i}"]["kernel"], activations[i].T @ delta, rtol=1e-6)
        np.testing.assert_allclose(grads[f"Dense_{i}"]["bias"], delta.sum(0), rtol=1e-6)
        delta = (delta @ layers[i]["kernel"].T) * activations[i] * (1 - activations[i])


def test_softmax_of_the_textbook_example():
    logits = jnp.array([[1.0, 2, 3, 4, 1, 2, 3]])
    probabilities = OBJECTIVES["softmax_cross_entropy"].probabilities(logits)[0]
    np.testing.assert_allclose(probabilities, [0.024, 0.064, 0.175, 0.475, 0.024, 0.064, 0.175], atol=5e-4)


@pytest.mark.parametrize("name", OF_CLASSES)
def test_probabilities_are_probabilities_and_rank_as_the_logits_do(name):
    logits = jnp.asarray(random(20, 7)) * 5
    shares = OBJECTIVES[name].probabilities(logits)
    np.testing.assert_allclose(shares.sum(-1), 1)
    np.testing.assert_array_equal(shares.argmax(-1), logits.argmax(-1))


@pytest.mark.parametrize("name", OF_CLASSES)
def test_a_loss_falls_along_its_gradient_and_is_least_at_the_truth(name):
    targets, logits = np.eye(4)[[0, 1, 2, 3, 0]], jnp.asarray(random(5, 4))
    loss = OBJECTIVES[name].loss
    down = jax.grad(lambda z: loss(z, targets).sum())(logits)
    assert loss(logits - 0.01 * down, targets).sum() < loss(logits, targets).sum()
    assert (loss(jnp.asarray(50 * (2 * targets - 1)), targets) < 1e-12).all()


def test_the_logistic_loss_of_two_outputs_is_one_regression_each():
    """C = -sum_k t_k log a_k + (1 - t_k) log(1 - a_k) for a = sigmoid(z): dC/dz = a - t."""
    logits, targets = random(6, 3) * 3, np.eye(3)[[0, 2, 1, 1, 0, 2]]
    a = sigmoid(logits)
    wanted = -(targets * np.log(a) + (1 - targets) * np.log(1 - a)).sum(1)
    loss = OBJECTIVES["binary_cross_entropy"].loss
    np.testing.assert_allclose(loss(jnp.asarray(logits), targets), wanted, rtol=1e-12)
    grads = jax.grad(lambda z: loss(z, targets).sum())(jnp.asarray(logits))
    np.testing.assert_allclose(grads, a - targets, rtol=1e-10)
    far = loss(jnp.array([[800.0, -800.0]]), np.array([[0.0, 1.0]]))  # where a sigmoid is 0 or 1 in float64
    np.testing.assert_allclose(far, 1600)


def test_the_perceptron_criterion_is_rosenblatt_s_for_two_classes():
    """max(0, -y (w.x + b)) with y = +-1: a gradient of -y x for a point on the wrong side, and none for the others."""
    module = build("linear", num_classes=2)
    x, labels = random(40, 1, 1, 2, seed=3), np.arange(40) % 2
    params = {"kernel": jnp.asarray(random(2, 2)), "bias": jnp.asarray(random(2))}
    w, b = params["kernel"][:, 1] - params["kernel"][:, 0], params["bias"][1] - params["bias"][0]
    y = 2.0 * labels - 1
    scores = y * (x[:, 0, 0] @ w + b)
    wrong = scores < 0
    assert 5 < wrong.sum() < 35

    def losses(params):
        logits = module.apply({"params": {"Dense_0": params}}, x)
        return OBJECTIVES["perceptron"].loss(logits, np.eye(2)[labels])

    np.testing.assert_allclose(losses(params), np.maximum(0, -scores), atol=1e-12)
    grads = jax.grad(lambda p: losses(p).sum())(params)["kernel"]
    correction = -(y[:, None] * x[:, 0, 0])[wrong].sum(0)
    np.testing.assert_allclose(grads[:, 1], correction, rtol=1e-10)
    np.testing.assert_allclose(grads[:, 0], -correction, rtol=1e-10)


def test_squared_error_is_the_mean_over_features_and_its_gradient_the_difference():
    outputs, targets = random(5, 3, 4), random(5, 3, 4, seed=1)
    loss = OBJECTIVES["squared_error"].loss
    np.testing.assert_allclose(loss(jnp.asarray(outputs), targets), ((outputs - targets) ** 2).mean(-1), rtol=1e-12)
    grads = jax.grad(lambda z: loss(z, targets).sum())(jnp.asarray(outputs))
    np.testing.assert_allclose(grads, 2 * (outputs - targets) / 4, rtol=1e-12)
