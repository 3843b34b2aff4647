"""Boxes against brute force, and the localization of one object from arrays to prediction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from percept_jax.tasks import boxes, localization


def some_boxes(count, seed):
    corners = np.sort(np.random.default_rng(seed).random((count, 2, 2)), 1)
    return np.concatenate([corners[:, 0], corners[:, 1]], -1)


def brute(a, b):
    """IoU and generalized IoU of two boxes, in Python's float64."""
    high, wide = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(0, high) * max(0, wide)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return common / union, common / union - (hull - union) / hull


def test_overlaps_are_those_of_loops():
    a, b = some_boxes(500, 0), some_boxes(500, 1)
    with jax.enable_x64(True):
        found = np.stack([boxes.iou(a, b), boxes.giou(a, b)], -1)
    np.testing.assert_allclose(found, [brute(*pair) for pair in zip(a, b, strict=True)], rtol=1e-9, atol=1e-9)
    assert (found[:, 0] == 0).any()
    np.testing.assert_allclose(boxes.iou(a, a), 1, rtol=1e-4)


def test_gradients_are_finite_even_where_boxes_are_equal_or_absent():
    outputs = jnp.array(
        [[0.3, -0.2, 0.1, 0.4, 1.0, -1.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [50.0, -50.0, 50.0, -50.0, 50.0, -50.0]]
    )
    same = boxes.from_outputs(outputs[:1, 2:])
    targets = jnp.concatenate([jnp.array([[1.0, 0.0]] * 3), jnp.concatenate([same, jnp.zeros((1, 4)), same])], -1)
    grads = jax.grad(lambda x: localization.loss(x, targets).sum())(outputs)
    assert np.isfinite(grads).all()
    # Without a box, the class alone counts.
    np.testing.assert_array_equal(grads[1, 2:], 0)
    assert float(localization.loss(outputs, targets)[1]) == pytest.approx(np.log(2))


def test_the_loss_of_a_right_answer_is_nothing_and_of_a_wrong_box_its_two_distances():
    logits, box = jnp.array([[50.0, 0.0]]), jnp.array([[0.5, -0.5, 0.2, -0.2]])
    truth = boxes.from_outputs(box)
    targets = jnp.concatenate([jnp.array([[1.0, 0.0]]), truth], -1)
    outputs = jnp.concatenate([logits, box], -1)
    assert float(localization.loss(outputs, targets)[0]) == pytest.approx(0, abs=1e-5)
    moved = targets.at[0, 2:].add(0.1)
    wanted = 2 * (1 - brute(np.asarray(truth[0], float), np.asarray(moved[0, 2:], float))[1]) + 5 * 0.4
    assert float(localization.loss(outputs, moved)[0]) == pytest.approx(wanted, rel=1e-5)
