"""AlexNet, VGG, GoogLeNet, ResNet and DenseNet."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.families import SMALL, drawn, paths, shapes

from percept_jax.models import build, has_dropout, wanted_image_size
from percept_jax.models.googlenet import Head, adaptive_mean
from percept_jax.models.layers import INITIALIZERS, parts
from percept_jax.models.resnet import Block

FAMILIES = ("alexnet", "alexnet_single_tower", "vgg11", "vgg11_bn", "googlenet", "resnet18", "resnet50_v2", "densenet121")


def count(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def trained(module, variables, images):
    """Logits in training, and all that changes beside the parameters."""
    rate = {"dropout_rate": jnp.float32(0.5)} if has_dropout(module) else {}
    rngs = {"dropout": jax.random.key(0)}
    return module.apply(variables, images, train=True, mutable=["batch_stats", "auxiliary"], rngs=rngs, **rate)


@pytest.mark.parametrize(
    ("name", "values", "parameters"),
    [
        ("alexnet", {}, 60_965_224),
        ("alexnet", {"groups": 1}, 62_378_344),
        ("alexnet_single_tower", {}, 61_100_840),
        pytest.param("vgg11", {}, 132_863_336, marks=pytest.mark.slow),
        pytest.param("vgg13", {}, 133_047_848, marks=pytest.mark.slow),
        ("vgg16", {}, 138_357_544),
        pytest.param("vgg19", {}, 143_667_240, marks=pytest.mark.slow),
        ("vgg11_bn", {}, 132_868_840),
        pytest.param("vgg13_bn", {}, 133_053_736, marks=pytest.mark.slow),
        pytest.param("vgg16_bn", {}, 138_365_992, marks=pytest.mark.slow),
        pytest.param("vgg19_bn", {}, 143_678_248, marks=pytest.mark.slow),
        ("googlenet", {}, 13_004_888),
        pytest.param("googlenet", {"auxiliary": False}, 6_624_904, marks=pytest.mark.slow),
        ("resnet18", {}, 11_689_512),
        pytest.param("resnet34", {}, 21_797_672, marks=pytest.mark.slow),
        ("resnet50", {}, 25_557_032),
        pytest.param("resnet101", {}, 44_549_160, marks=pytest.mark.slow),
        pytest.param("resnet152", {}, 60_192_808, marks=pytest.mark.slow),
        ("resnet50_v2", {}, 25_549_352),
        pytest.param("resnet101_v2", {}, 44_541_480, marks=pytest.mark.slow),
        pytest.param("resnet152_v2", {}, 60_185_128, marks=pytest.mark.slow),
        pytest.param("wide_resnet50_2", {}, 68_883_240, marks=pytest.mark.slow),
        ("densenet121", {}, 7_978_856),
        pytest.param("densenet169", {}, 14_149_480, marks=pytest.mark.slow),
        pytest.param("densenet201", {}, 20_013_928, marks=pytest.mark.slow),
        ("resnet20", {}, 269_722),
        pytest.param("resnet32", {}, 464_154, marks=pytest.mark.slow),
        pytest.param("resnet44", {}, 658_586, marks=pytest.mark.slow),
        pytest.param("resnet56", {}, 853_018, marks=pytest.mark.slow),
        pytest.param("resnet110", {}, 1_727_962, marks=pytest.mark.slow),
        pytest.param("wide_resnet28_10", {}, 36_479_194, marks=pytest.mark.slow),
        pytest.param("densenet_bc_100", {}, 769_162, marks=pytest.mark.slow),
    ],
)
def test_parameters_are_those_of_the_literature(name, values, parameters):
    classes = 10 if wanted_image_size(name) == 32 else 1000
    assert count(shapes(name, classes, **values)[1]) == parameters


def test_the_images_that_a_network_wants_depend_on_its_stem():
    sizes = {name: (wanted_image_size(name), wanted_image_size(name, SMALL)) for name in FAMILIES}
    assert sizes == {name: (227 if name == "alexnet" else 224, 32) for name in FAMILIES}
    assert wanted_image_size("resnet20") == 32
    assert wanted_image_size("mlp") == 0


def test_alexnet_has_the_maps_of_the_paper():
    module, variables, images = shapes("alexnet", 1000)
    seen = {}

    def look(call, args, kwargs, context):
        y = call(*args, **kwargs)
        if context.module.name:
            seen[context.module.name] = (args[0].shape[1:], y.shape[1:])
        return y

    with nn.intercept_methods(look):
        jax.eval_shape(module.apply, variables, images)
    convolutions = [(55, 55, 96), (27, 27, 256), (13, 13, 384), (13, 13, 384), (13, 13, 256)]
    assert [seen[f"conv{i}"][1] for i in range(1, 6)] == convolutions
    assert [seen[name][0] for name in ("conv2", "conv3", "fc6")] == [(27, 27, 96), (13, 13, 256), (6 * 6 * 256,)]  # pooled
    assert [seen[name][1] for name in ("fc6", "fc7", "fc8")] == [(4096,), (4096,), (1000,)]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_small_images_and_computes_in_what_it_is_given(name):
    fewer = {"stages": (2, 2)} if name.startswith(("resnet", "densenet")) else {}
    module, variables, images = shapes(name, **fewer, **SMALL)
    assert images.shape == (2, 32, 32, 3)
    with jax.numpy_dtype_promotion("strict"):
        assert jax.eval_shape(lambda v, x: trained(module, v, x), variables, images)[0].shape == (2, 10)
    half = {"params": jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), variables["params"])}
    program = jax.make_jaxpr(lambda v, x: trained(module, v, x))({**variables, **half}, images.update(dtype=jnp.bfloat16))
    products = [e for e in program.eqns if e.primitive.name in ("conv_general_dilated", "dot_general")]
    assert {e.outvars[0].aval.dtype for e in products} <= {jnp.dtype(jnp.bfloat16)}
    assert program.out_avals[0].dtype == jnp.bfloat16
    statistics = [leaf for leaf in program.out_avals if leaf.ndim == 1]
    assert len(statistics) == len(jax.tree.leaves(variables.get("batch_stats", {})))
    assert all(leaf.dtype == jnp.float32 for leaf in statistics)


@pytest.mark.parametrize(
    ("name", "paths_of_torchvision"),
    [
        ("resnet18", ["conv1/kernel", "bn1/scale", "layer1_0/conv1/kernel", "layer2_0/downsample_1/bias", "fc/bias"]),
        (
            "googlenet",
            ["conv1/conv/kernel", "inception3a/branch2_0/bn/scale", "inception5b/branch4_1/conv/kernel", "aux1/fc1/bias"],
        ),
        (
            "densenet121",
            ["features/conv0/kernel", "features/denseblock4/denselayer16/norm2/bias", "features/transition3/conv/kernel"],
        ),
        ("vgg11_bn", ["conv5_2/kernel", "bn5_2/scale", "fc6/kernel", "fc8/bias"]),
    ],
)
def test_parameters_have_the_names_of_torchvision_s(name, paths_of_torchvision):
    assert set(paths_of_torchvision) <= paths(shapes(name)[1])


def learn(name, size, values, rate, steps=30):
    """Losses on eight images of noise under Adam, and the gradients of the first step by path."""
    module, optimizer = build(name, num_classes=4, **values), optax.adam(rate)
    images, labels = np.random.default_rng(1).normal(size=(8, size, size, 3)).astype(np.float32), np.arange(8) % 4
    variables = drawn(module, images)

    def objective(params, rest):
        logits, updated = trained(module, {"params": params, "batch_stats": rest}, images)
        heads = [logits, *jax.tree.leaves(updated.get("auxiliary", {}))]
        losses = [optax.softmax_cross_entropy_with_integer_labels(head, labels).mean() for head in heads]
        return sum(losses), (losses[0], updated.get("batch_stats", {}))

    @jax.jit
    def step(params, rest, state):
        grads, (loss, rest) = jax.grad(objective, has_aux=True)(params, rest)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), rest, state, loss, grads

    params, rest = variables["params"], variables.get("batch_stats", {})
    state, losses, first = jax.jit(optimizer.init)(params), [], None
    for _ in range(steps + 1):
        params, rest, state, loss, grads = step(params, rest, state)
        first = first or grads
        losses.append(float(loss))
    return losses, jax.device_get(first)


@pytest.mark.parametrize(
    ("name", "size", "values", "rate"),
    [
        ("vgg11", 16, {"stages": (1, 1, 1), "width": 16, **SMALL}, 0.001),
        pytest.param("resnet50_v2", 16, {"stages": (1, 1), "width": 8, **SMALL}, 0.003, marks=pytest.mark.slow),
        pytest.param("densenet_bc_100", 16, {"stages": (1, 2)}, 0.003, marks=pytest.mark.slow),
        pytest.param("alexnet", 32, SMALL, 0.0003, marks=pytest.mark.slow),
        pytest.param("vgg11", 32, SMALL, 0.0003, marks=pytest.mark.slow),
        pytest.param("googlenet", 16, SMALL, 0.001, marks=pytest.mark.slow),
        pytest.param("resnet18", 16, SMALL, 0.001, marks=pytest.mark.slow),
        pytest.param("resnet18_v2", 16, SMALL, 0.001, marks=pytest.mark.slow),
        pytest.param("resnet20", 32, {}, 0.003, marks=pytest.mark.slow),
    ],
)
def test_every_family_learns_with_every_parameter(name, size, values, rate):
    losses, grads = learn(name, size, values, rate)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(grad).all(), path
        assert np.abs(grad).max() > 0, path
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.slow
def test_auxiliary_heads_speak_in_training_only_and_are_there_from_the_start():
    module, variables, images = shapes("googlenet", **SMALL)
    train = jax.eval_shape(lambda key, x: module.init({"params": key, "dropout": key}, x, train=True), jax.random.key(0), images)
    assert train == variables
    assert set(variables) == {"params", "batch_stats"}
    sown = jax.eval_shape(lambda v, x: trained(module, v, x), variables, images)[1]["auxiliary"]
    assert set(sown) == {"aux1", "aux2"}
    assert [leaf.shape for leaf in jax.tree.leaves(sown)] == [(2, 10)] * 2
    silent = jax.eval_shape(lambda v, x: module.apply(v, x, mutable=["auxiliary"]), variables, images)[1]
    assert not jax.tree.leaves(silent)
    module, variables, images = shapes("googlenet", auxiliary=False, **SMALL)
    assert "aux1" not in variables["params"]
    assert not jax.tree.leaves(jax.eval_shape(lambda v, x: trained(module, v, x), variables, images)[1].get("auxiliary", {}))


def test_an_auxiliary_head_gets_gradients():
    module = Head(parts(build("googlenet", num_classes=3), train=True), 3, nn.initializers.lecun_normal(), None)
    x = np.random.default_rng(0).normal(size=(4, 3, 3, 5)).astype(np.float32)
    variables = jax.jit(lambda key: module.init(key, x, False, 0.0))(jax.random.key(0))

    @jax.jit
    @jax.grad
    def slopes(params):
        _, updated = module.apply({**variables, "params": params}, x, True, 0.0, mutable=["batch_stats", "auxiliary"])
        return updated["auxiliary"]["logits"][0][:, 0].sum()

    for path, grad in jax.tree_util.tree_leaves_with_path(jax.device_get(slopes(variables["params"]))):
        assert np.abs(grad).max() > 0, path


@pytest.mark.parametrize(("rows", "columns"), [(14, 14), (4, 7), (2, 3), (1, 9)])
def test_the_adaptive_mean_is_pytorch_s(rows, columns):
    x = np.random.default_rng(0).normal(size=(2, rows, columns, 3)).astype(np.float32)
    expected = np.empty((2, 4, 4, 3))
    for i in range(4):
        for j in range(4):
            top, left = int(np.floor(i * rows / 4)), int(np.floor(j * columns / 4))
            bottom, right = int(np.ceil((i + 1) * rows / 4)), int(np.ceil((j + 1) * columns / 4))
            expected[:, i, j] = x[:, top:bottom, left:right].mean((1, 2))
    np.testing.assert_allclose(adaptive_mean(jnp.asarray(x), 4), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("values", [{}, {"preactivation": True}, {"norm": "none", "stages": (2,), "bottleneck": True}], ids=str)
def test_zero_init_makes_every_block_the_identity_that_still_learns(values, monkeypatch):
    monkeypatch.setitem(INITIALIZERS, "he_normal", nn.initializers.constant(0.1))  # compiles faster than one that draws
    module = build("resnet18", num_classes=3, **({"stages": (1,)} | values), width=4, zero_init=True, **SMALL)
    images = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    variables = jax.jit(module.init)(jax.random.key(1), images)

    @jax.jit
    def run(params):
        blocks = []

        def look(call, args, kwargs, context):
            y = call(*args, **kwargs)
            if isinstance(context.module, Block) and context.method_name == "__call__" and y.shape == args[0].shape:
                blocks.append((args[0], y))
            return y

        with nn.intercept_methods(look):
            logits = module.apply({**variables, "params": params}, images)
        return logits[:, 0].sum(), blocks

    grads, blocks = jax.device_get(jax.jit(jax.grad(run, has_aux=True))(variables["params"]))
    assert blocks
    for x, y in blocks:
        np.testing.assert_array_equal(x, y)
    kernel = module.preactivation or module.norm == "none"
    last, leaf = f"{'conv' if kernel else 'bn'}{3 if module.bottleneck else 2}", "kernel" if kernel else "scale"
    for name in {f"layer1_{i}" for i in range(module.stages[0])}:
        assert (np.asarray(variables["params"][name][last][leaf]) == 0).all()
        assert np.abs(grads[name][last][leaf]).max() > 0  # a ReLU at 0 would stop it


def passed(block, x):
    """What a block of drawn weights makes of `x` where its last layer starts at 0."""
    variables = drawn(block, x)
    for name, leaf in (("bn2", "scale"), ("conv2", "kernel")):
        if name.startswith("bn") == (block.zero == "scale"):
            variables["params"][name][leaf] *= 0
    return np.asarray(jax.jit(block.apply)(variables, x))


def test_a_shortcut_of_type_a_takes_every_other_pixel_and_adds_zeros():
    block = Block(parts(build("resnet20", num_classes=3), train=False), 5, 2, False, 1, "A", False, "scale")
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
    y = passed(block, x)
    np.testing.assert_array_equal(y[..., :3], np.maximum(x[:, ::2, ::2], 0))
    np.testing.assert_array_equal(y[..., 3:], 0)
    assert not any("downsample" in path for path in paths(shapes("resnet20")[1]))
    assert sum("downsample_0" in path for path in paths(shapes("resnet20", shortcut="B")[1])) == 2


def test_a_preactivated_block_adds_to_what_it_was_given_as_it_was():
    block = Block(parts(build("resnet18_v2", num_classes=3), train=False), 3, 1, False, 1, "B", True, "kernel")
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)  # negative numbers too
    np.testing.assert_array_equal(passed(block, x), x)


def test_the_stride_of_a_bottleneck_is_in_its_3x3_convolution():
    module, variables, images = shapes("resnet50", **SMALL)
    seen = jax.eval_shape(lambda v, x: module.apply(v, x, capture_intermediates=True), variables, images)[1]["intermediates"]
    block = seen["layer2_0"]
    assert block["conv1"]["__call__"][0].shape == (2, 32, 32, 128)
    assert block["conv2"]["__call__"][0].shape == (2, 16, 16, 128)
    assert block["conv3"]["__call__"][0].shape == (2, 16, 16, 512)
