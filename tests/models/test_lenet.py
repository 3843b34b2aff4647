"""LeNet-5 of 1998, and the three connectivities."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.models import CONNECTIVITIES, count, filled, init

from percept_jax.models import build
from percept_jax.models.lenet import SparseConv, Subsampling, codes


def test_lenet5_of_1998_has_the_paper_s_parameters_layer_by_layer():
    params = filled("lenet5_1998")[1]["params"]
    counts = {name: sum(leaf.size for leaf in jax.tree.leaves(layer)) for name, layer in params.items()}
    assert counts == {"C1": 156, "S2": 12, "C3": 1_516, "S4": 32, "C5": 48_120, "F6": 10_164}


def test_lenet5_of_1998_starts_within_2_4_over_the_inputs_of_each_unit():
    params = init("lenet5_1998")[1]["params"]
    for layer, inputs in [("C1", 25), ("C5", 400), ("F6", 120)]:
        assert 0.9 * 2.4 / inputs < jnp.abs(params[layer]["kernel"]).max() <= 2.4 / inputs
    assert 0.3 < jnp.abs(params["S4"]["coefficient"]).max() <= 0.6  # 16 draws
    largest = np.zeros(16)
    np.maximum.at(
        largest, [k for s in range(6) for k in range(16) if s in TABLE_1[k]], np.abs(params["C3"]["kernel"]).max((0, 1))
    )
    bounds = np.array([2.4 / (25 * len(seen)) for seen in TABLE_1])
    assert ((largest > 0.8 * bounds) & (largest <= bounds)).all()


# What the text of section II-B says of table I: contiguous subsets of three and of four, three others of four, all.
TABLE_1 = [{k, (k + 1) % 6, (k + 2) % 6} for k in range(6)]
TABLE_1 += [{k, (k + 1) % 6, (k + 2) % 6, (k + 3) % 6} for k in range(6)]
TABLE_1 += [{0, 1, 3, 4}, {1, 2, 4, 5}, {0, 2, 3, 5}, set(range(6))]


def test_a_map_of_c3_sees_the_maps_of_s2_that_table_1_gives_it():
    x = jax.random.normal(jax.random.key(1), (1, 5, 5, 6))
    c3 = SparseConv()
    variables = c3.init(jax.random.key(0), x)
    variables["params"]["bias"] = jnp.arange(16.0)
    y, slopes = c3.apply(variables, x), jax.jacobian(lambda x: c3.apply(variables, x)[0, 0, 0])(x)  # slopes [16, 1, 5, 5, 6]
    moved = np.asarray(jnp.abs(slopes).max((1, 2, 3)) > 0)
    assert [set(np.flatnonzero(row)) for row in moved] == TABLE_1
    kernels = iter(np.moveaxis(np.asarray(variables["params"]["kernel"]), -1, 0))  # one a cross of the table, row by row
    sums = np.arange(16.0)
    for s in range(6):
        for k in range(16):
            if s in TABLE_1[k]:
                sums[k] += np.sum(np.asarray(x)[0, :, :, s] * next(kernels))
    np.testing.assert_allclose(y[0, 0, 0], sums, rtol=1e-5, atol=1e-5)


def test_subsampling_scales_the_sum_of_four_and_shifts_it():
    x = np.arange(2 * 4 * 6 * 3, dtype=np.float32).reshape(2, 4, 6, 3)
    coefficient, bias = np.array([0.5, -1, 2], np.float32), np.array([1, 2, 3], np.float32)
    y = Subsampling().apply({"params": {"coefficient": coefficient, "bias": bias}}, x)
    sums = x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]
    np.testing.assert_allclose(y, coefficient * sums + bias, rtol=1e-6)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_the_codes_of_the_classes_are_signs_and_all_distinct(classes):
    assert codes(classes).shape == (classes, 84)
    assert (np.abs(codes(classes)) == 1).all()
    assert len(np.unique(codes(classes), axis=0)) == classes
    np.testing.assert_array_equal(codes(classes), codes(classes))


def test_the_code_of_a_digit_is_its_picture():
    seven = ["".join("#" if ink > 0 else "." for ink in row) for row in codes(10)[7].reshape(12, 7)]
    assert seven[:4] == ["#######", ".....##", ".....##", "....##."]
    assert seven[9:] == ["..##...", ".......", "......."]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_lenet5_of_1998_answers_with_minus_squared_distances_whatever_it_computes_in(dtype):
    module, variables, images = filled("lenet5_1998")
    variables, images = jax.tree.map(lambda x: x.astype(dtype), (variables, images))
    logits, seen = module.apply(variables, images, capture_intermediates=True)
    f6 = np.asarray(1.7159 * jnp.tanh(2 / 3 * seen["intermediates"]["F6"]["__call__"][0]), np.float64)
    distances = [[np.sum((f - code) ** 2) for code in codes(10)] for f in f6]
    assert np.ptp(distances) > 1
    np.testing.assert_allclose(logits, -np.array(distances), rtol=1e-5)


@pytest.mark.slow
def test_lenet5_of_1998_learns_under_softmax_cross_entropy():
    patterns = jax.random.normal(jax.random.key(0), (10, 8, 8, 1)).repeat(4, 1).repeat(4, 2)
    labels = jnp.arange(30) % 10
    images = patterns[labels] + 0.3 * jax.random.normal(jax.random.key(1), (30, 32, 32, 1))
    module = build("lenet5_1998", num_classes=10)
    params, optimizer = module.init(jax.random.key(2), images), optax.sgd(0.01, momentum=0.9)

    @jax.jit
    def step(params, state):
        def objective(params):
            return optax.softmax_cross_entropy_with_integer_labels(module.apply(params, images), labels).mean()

        loss, grads = jax.value_and_grad(objective)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    state, losses = optimizer.init(params), []
    for _ in range(60):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("size", [28, 9])
def test_the_three_connectivities_have_the_same_layers_and_the_parameters_of_their_windows(size):
    half = (size + 1) // 2
    units = [size**2 * 3, half**2 * 4, ((half + 1) // 2) ** 2 * 8]
    per_unit = {"full": (units[0] + 1, units[1] + 1), "local": (25 * 3 + 1, 25 * 4 + 1)}
    expected = {kind: units[1] * first + units[2] * second for kind, (first, second) in per_unit.items()}
    expected["shared"] = 4 * (25 * 3 + 1) + 8 * (25 * 4 + 1)
    for kind in CONNECTIVITIES:
        module = build("connectivity", num_classes=10, connectivity=kind)
        images = jnp.zeros((1, size, size, 3))
        variables = jax.eval_shape(module.init, jax.random.key(0), images)
        assert count(variables) == expected[kind] + units[2] * 10 + 10
        _, seen = jax.eval_shape(lambda v, x, m=module: m.apply(v, x, capture_intermediates=True), variables, images)
        layers = [leaf.size for leaf in jax.tree.leaves(seen) if leaf.shape != (1, 10)]
        assert sorted(layers) == sorted(units[1:])


@pytest.mark.slow
def test_connectivities_agree_where_their_weights_do():
    shared, variables, images = filled("connectivity", 7, channels=3)
    params = variables["params"]
    local, full = {"Dense_0": params["Dense_0"]}, {"Dense_2": params["Dense_0"]}
    for layer, (size, maps) in enumerate([(7, 3), (4, 4)]):
        kernel, bias = params[f"Conv_{layer}"]["kernel"], params[f"Conv_{layer}"]["bias"]
        half = (size + 1) // 2
        flat = kernel.transpose(2, 0, 1, 3).reshape(25 * maps, -1)  # Flax's order of a window's inputs
        unshared = jnp.broadcast_to(flat, (half, half, *flat.shape))
        biases = jnp.broadcast_to(bias, (half, half, len(bias)))
        local[f"ConvLocal_{layer}"] = {"kernel": unshared, "bias": biases}
        pixels = jnp.eye(size * size * maps).reshape(-1, size, size, maps)  # one image an input
        conv = nn.Conv(len(bias), (5, 5), (2, 2), use_bias=False)
        matrix = conv.apply({"params": {"kernel": kernel}}, pixels).reshape(len(pixels), -1)
        full[f"Dense_{layer}"] = {"kernel": matrix, "bias": biases.reshape(-1)}
    expected = shared.apply(variables, images)
    for kind, weights in [("local", local), ("full", full)]:
        logits = build("connectivity", num_classes=10, connectivity=kind).apply({"params": weights}, images)
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_unshared_kernels_are_drawn_as_large_as_a_shared_one_and_each_anew():
    kernel = init("connectivity", connectivity="local", features=(64,))[1]["params"]["ConvLocal_0"]["kernel"]
    assert kernel.shape == (4, 4, 25, 64)
    assert float(kernel.std()) == pytest.approx(25**-0.5, rel=0.02)
    assert not (kernel[0, 0] == kernel[0, 1]).any()
