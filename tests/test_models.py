import dataclasses
from typing import get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from percept_jax import models
from percept_jax.errors import UsageError
from percept_jax.experiment import KNOBS
from percept_jax.models import MODELS, build
from percept_jax.models.layers import INITIALIZERS, Activation, Dropout, Initializer, Norm, activate, norm, pool
from percept_jax.models.lenet import SparseConv, Subsampling, codes
from percept_jax.training.preflight import check_fits

SMALL = ("linear", "mlp", "cnn", "lenet5", "lenet5_1998", "connectivity")  # larger families have tests of their own
ACTIVATIONS = get_args(Activation)
CONNECTIVITIES = ("full", "local", "shared")


def count(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def init(name, size=None, channels=1, **knobs):
    size = size or models.wanted_image_size(name) or 8
    module = build(name, num_classes=10, **knobs)
    images = jnp.linspace(-1, 1, 2 * size * size * channels).reshape(2, size, size, channels)
    return module, jax.jit(module.init)(jax.random.key(0), images), images


def filled(name, size=None, channels=1, **knobs):
    """As `init`, with weights that NumPy draws: it saves compiling the initial ones where nobody looks at them."""
    size = size or models.wanted_image_size(name) or 8
    module = build(name, num_classes=10, **knobs)
    images = jnp.linspace(-1, 1, 2 * size * size * channels).reshape(2, size, size, channels)
    shapes, draws = jax.eval_shape(module.init, jax.random.key(0), images), np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)
    params = jax.tree.map(lambda leaf: jnp.asarray(draws.uniform(-0.2, 0.2, leaf.shape), jnp.float32), shapes["params"])
    return module, {**variables, "params": params}, images


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


@pytest.mark.parametrize("name", SMALL)
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


@pytest.mark.parametrize("name", ["cnn", "lenet5"])
def test_normalization_and_pooling_are_those_asked_for(name):
    outputs = {float(m.apply(v, x)[0, 0]) for kind in get_args(Norm) for m, v, x in [filled(name, norm=kind)]}
    assert len(outputs) == 4
    outputs = {float(m.apply(v, x)[0, 0]) for kind in ("max", "average") for m, v, x in [filled(name, pooling=kind)]}
    assert len(outputs) == 2


@pytest.mark.parametrize("name", [name for name in SMALL if "activation" in {k.name for k in models.knobs(name)}])
def test_every_activation_makes_another_network_of_the_same_output(name):
    outputs = []
    for knobs in [{"activation": a} for a in ACTIVATIONS] + [{"activation": "leaky_relu", "negative_slope": -0.5}]:
        module, variables, images = filled(name, **knobs)
        outputs.append(module.apply(variables, images))
        assert outputs[-1].shape == (2, 10)
        assert jnp.isfinite(outputs[-1]).all()
    assert len({float(logits[0, 0]) for logits in outputs}) == len(outputs)


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


@pytest.mark.parametrize("name", [name for name in SMALL if "initializer" in {k.name for k in models.knobs(name)}])
def test_the_initializer_sets_every_kernel_and_flax_s_is_the_default(name, monkeypatch):
    assert {k.name: k.default for k in models.knobs(name)}["initializer"] == "lecun_normal"
    monkeypatch.setitem(INITIALIZERS, "normal", lambda key, shape, dtype: jnp.full(shape, 7, dtype))
    for connectivity in CONNECTIVITIES if name == "connectivity" else (None,):
        knobs = {"initializer": "normal"} | ({"connectivity": connectivity} if connectivity else {})
        for path, leaf in jax.tree_util.tree_leaves_with_path(init(name, **knobs)[1]["params"]):
            if "scale" not in str(path):  # batch norm's
                assert (leaf == (7 if "kernel" in str(path) else 0)).all(), path


def test_the_cnn_drops_units_of_its_hidden_layer():
    module, variables, images = filled("cnn", hidden=64)

    def logits(rate):
        rngs = {"dropout": jax.random.key(0)}
        return module.apply(variables, images, train=True, dropout_rate=rate, rngs=rngs, mutable=["batch_stats"])[0]

    assert not (logits(0.0) == logits(0.5)).any()


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


def test_an_unknown_model_or_knob_or_value_is_refused_with_what_was_meant():
    with pytest.raises(UsageError, match="did you mean 'lenet5'"):
        build("lenet", num_classes=10)
    with pytest.raises(UsageError, match=r"a knob of mlp, cnn.*, not of linear"):
        build("linear", num_classes=10, hidden=(3,))
    with pytest.raises(UsageError, match=r"a knob of alexnet, alexnet_single_tower, vgg11 and \d+ more, not of mlp"):
        build("mlp", num_classes=10, stem="small")
    with pytest.raises(UsageError, match=r"--hidden: 0 is outside \[1, 1000000\]"):
        build("mlp", num_classes=10, hidden=(0,))
    with pytest.raises(UsageError, match="--norm: unknown name 'bach'; did you mean 'batch'"):
        build("lenet5", num_classes=10, norm="bach")


def test_an_image_that_is_too_small_is_refused():
    with pytest.raises(UsageError, match="image_size: lenet5 cannot take images of 8 pixels a side; it wants 32"):
        check_fits("lenet5", {}, (8, 8, 1), 10)
    check_fits("lenet5", {}, (28, 28, 1), 10)
    with pytest.raises(UsageError, match="image_size: vgg11 cannot take images of 28 pixels a side; it wants 32"):
        check_fits("vgg11", {"stem": "small"}, (28, 28, 3), 10)
    with pytest.raises(UsageError, match="image_size: lenet5_1998 cannot take images of 28 pixels a side; it wants 32"):
        check_fits("lenet5_1998", {}, (28, 28, 1), 10)


@pytest.mark.parametrize(("window", "stride", "size"), [(2, 2, 8), (3, 2, 9), (3, 2, 8), (2, 1, 5), (3, 3, 11)])
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


@pytest.mark.parametrize(("window", "stride", "padding", "size"), [(3, 2, 1, 8), (3, 1, 1, 5), (2, 2, 1, 7), (5, 3, 2, 9)])
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


def test_a_partial_gives_a_model_other_defaults(monkeypatch):
    import functools

    monkeypatch.setitem(MODELS, "mlp_deep", functools.partial(models.MLP, hidden=(32, 32)))
    assert {k.name: k.default for k in models.knobs("mlp_deep")}["hidden"] == (32, 32)
    assert build("mlp_deep", num_classes=10).hidden == (32, 32)
    assert build("mlp_deep", num_classes=10, hidden=(4,)).hidden == (4,)
    assert dataclasses.is_dataclass(models.module_class("mlp_deep"))


def test_knobs_that_leave_nothing_of_an_image_are_refused():
    for name, values in (("vgg11", {"stem": "small", "stages": (1,) * 6}), ("alexnet", {"stem": "small", "pool_window": 9})):
        with pytest.raises(UsageError, match=f"image_size: {name} cannot take images of 32 pixels a side; not with these knobs"):
            check_fits(name, values, (32, 32, 3), 10)
