"""Kinds of convolutions, norms and shortcuts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import some
from helpers.families import SMALL, drawn, paths, shapes

from percept_jax.errors import UsageError
from percept_jax.models import build, knobs
from percept_jax.models.alexnet import AlexNet
from percept_jax.models.layers import conv, local_response_norm


def test_local_response_norm_is_the_paper_s_formula_and_its_gradient():
    with jax.enable_x64(True):
        x = 20 * np.random.default_rng(0).normal(size=(2, 3, 7))
        for n, k, alpha, beta in [(5, 2, 1e-4, 0.75), (3, 1, 0.01, 0.5)]:
            expected = np.empty_like(x)
            for i in range(7):
                total = sum(x[..., j] ** 2 for j in range(max(0, i - n // 2), min(6, i + n // 2) + 1))
                expected[..., i] = x[..., i] / (k + alpha * total) ** beta
            ours = local_response_norm(x, k, n, alpha, beta)
            np.testing.assert_allclose(ours, expected, rtol=1e-13)
        np.testing.assert_array_equal(local_response_norm(x), local_response_norm(x, 2, 5, 1e-4, 0.75))
        weights = np.random.default_rng(1).normal(size=x.shape)
        weighted = jax.jit(lambda x: jnp.sum(weights * local_response_norm(x, alpha=0.01), axis=(-3, -2, -1)))
        moves = 1e-4 * np.eye(x.size).reshape(-1, *x.shape)
        differences = jax.vmap(weighted)(x + moves) - jax.vmap(weighted)(x - moves)
        np.testing.assert_allclose(jax.grad(weighted)(x).ravel(), differences / 2e-4, rtol=1e-6, atol=1e-8)


class One(nn.Module):
    """One convolution by name."""

    kind: str
    features: int = 6
    groups: int = 1
    first: bool = False

    @nn.compact
    def __call__(self, x):
        return conv(self.kind, self.features, 3, 2, first=self.first, feature_group_count=self.groups, use_bias=False, name="c")(
            x
        )


DRAWS = np.random.default_rng(0)
X, KERNEL = (DRAWS.normal(size=shape).astype(np.float32) for shape in [(2, 8, 8, 4), (3, 3, 4, 6)])


def test_a_grouped_convolution_is_separate_ones_side_by_side():
    kernel = KERNEL[:, :, :2]
    halves = [
        One("plain", 3).apply({"params": {"c": {"kernel": kernel[..., part]}}}, maps)
        for part, maps in zip((slice(3), slice(3, 6)), (X[..., :2], X[..., 2:]), strict=True)
    ]
    grouped = One("plain", 6, groups=2).apply({"params": {"c": {"kernel": kernel}}}, X)
    np.testing.assert_allclose(grouped, np.concatenate(halves, -1), rtol=1e-5, atol=1e-5)


def test_a_weight_standardized_convolution_sees_kernels_of_mean_0_and_variance_1():
    standard = (KERNEL - KERNEL.mean((0, 1, 2))) / KERNEL.std((0, 1, 2))
    ours = One("weight_standardized").apply({"params": {"c": {"kernel": 3 * KERNEL + 7}}}, X)
    np.testing.assert_allclose(ours, One("plain").apply({"params": {"c": {"kernel": standard}}}, X), rtol=1e-4, atol=1e-4)


def test_a_separable_convolution_goes_over_each_map_and_then_mixes_them():
    variables = drawn(One("separable"), X)
    over, mix = variables["params"]["c_depthwise"]["kernel"], variables["params"]["c_pointwise"]["kernel"]
    assert (over.shape, mix.shape) == ((3, 3, 1, 4), (1, 1, 4, 6))
    dense = over[:, :, 0, :, None] * mix
    expected = One("plain").apply({"params": {"c": {"kernel": dense}}}, X)
    np.testing.assert_allclose(One("separable").apply(variables, X), expected, rtol=1e-4, atol=1e-5)
    assert paths(drawn(One("separable", first=True), X)) == {"c/kernel"}


@pytest.mark.parametrize("name", some(["alexnet", "vgg11_bn", "googlenet", "resnet18", "densenet_bc_100"], "alexnet", "resnet18"))
def test_the_convolution_and_the_norm_of_every_layer_are_those_asked_for(name):
    less = {"stages": (1, 1)} if "stages" in {k.name for k in knobs(name)} else {}
    plain = paths(shapes(name, **less, **SMALL)[1])
    separable = paths(shapes(name, conv="separable", **less, **SMALL)[1])
    assert any("depthwise" in path for path in separable)
    for norm in ("group", "none"):
        _, variables, _ = shapes(name, norm=norm, **less, **SMALL)
        assert "batch_stats" not in variables
        assert norm == "group" or not any("scale" in path for path in paths(variables))
    assert separable != plain


@pytest.mark.parametrize("name", some(["vgg11_bn", "resnet18", "densenet_bc_100"], "resnet18"))
def test_every_kind_of_part_makes_another_network(name):
    outputs = []
    for values in [{}, {"conv": "weight_standardized"}, {"norm": "layer"}, {"norm": "group"}, {"activation": "elu"}]:
        module = build(name, num_classes=3, stages=(1,), **SMALL, **values)
        outputs.append(float(jax.jit(module.apply)(drawn(module, X[..., :3]), X[..., :3])[0, 0]))
    assert np.isfinite(outputs).all()
    assert len(set(outputs)) == len(outputs)


def test_groups_that_do_not_divide_the_maps_are_refused():
    with pytest.raises(UsageError, match="--groups: 3 groups do not divide"):
        build("alexnet", num_classes=10, groups=3)


def test_alexnet_s_norm_stands_where_it_is_wanted():
    def sizes(**values):
        """Rows of what each norm and the first full layer see."""
        module, variables, images = shapes("alexnet", norm="batch", **SMALL, **values)
        seen = {}

        def look(call, args, kwargs, context):
            seen[context.module.name] = args[0].shape[1]
            return call(*args, **kwargs)

        with nn.intercept_methods(look):
            jax.eval_shape(module.apply, variables, images)
        return {name: size for name, size in seen.items() if name and name.startswith(("norm", "fc6"))}

    assert sizes() == {"norm1": 32, "norm2": 15, "fc6": 3 * 3 * 256}
    assert sizes(norm_position="after_pooling") == {"norm1": 15, "norm2": 7, "fc6": 3 * 3 * 256}
    assert sizes(normalized=(1, 3), pool_window=2) == {"norm1": 32, "norm3": 8, "fc6": 4 * 4 * 256}


def test_alexnet_s_local_response_norm_and_its_place_matter():
    shared = {"num_classes": 3, "features": (4, 6, 8, 8, 6), "stem": "small"}
    variables, outputs = drawn(AlexNet(**shared), 100 * X[:, :, :, :3].repeat(2, 1).repeat(2, 2)), set()
    for values in ({}, {"norm_position": "after_pooling"}, {"norm": "none"}):
        module = AlexNet(**shared, **values)
        outputs.add(float(jax.jit(module.apply)(variables, 100 * X[:, :, :, :3].repeat(2, 1).repeat(2, 2))[0, 0]))
    assert len(outputs) == 3


def test_alexnet_s_biases_start_as_in_the_paper():
    shared = {"num_classes": 3, "features": (4, 6, 8, 8, 6), "stem": "small", "initializer": "zeros"}
    for tower, expected in [(False, {"conv2", "conv4", "conv5", "fc6", "fc7"}), (True, set())]:
        params = jax.jit(AlexNet(**shared, single_tower=tower).init)(jax.random.key(0), np.zeros((1, 16, 16, 3)))["params"]
        biases = {name: np.unique(leaves["bias"]).tolist() for name, leaves in params.items()}
        assert biases == {name: [float(name in expected)] for name in params}
