"""Weights of PyTorch give the outputs of PyTorch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import some
from helpers.weights import cell, template

from percept_jax.errors import UsageError
from percept_jax.models import build
from percept_jax.weights import file as weights


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def peers(torch):
    from helpers import torch_models

    return torch_models


def imported(torch, tmp_path, peer, shapes, num_classes=0):
    """A PyTorch module's weights and running statistics, all of them random, by way of a file."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    for name, array in peer.state_dict().items():
        if array.ndim == 1 and array.is_floating_point():
            low, high = (0.5, 1.5) if name.endswith(("running_var", "weight")) else (-0.1, 0.1)
            array.uniform_(low, high, generator=generator)
    save_file(peer.state_dict(), tmp_path / "weights.safetensors")
    return weights.fit(weights.read(tmp_path / "weights.safetensors"), shapes, "a file", num_classes)[0]


def agree(ours, theirs, tolerance=1e-4):
    theirs = theirs.detach().numpy()
    assert 0.01 < theirs.std() < 1e3  # a comparison that says something
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


SLOW = pytest.mark.slow
VGG11_BN = {"stages": (1, 1, 2, 2, 2), "norm": True, "cells": 2, "units": 4096, "width": 4}


@pytest.mark.parametrize(
    ("name", "peer", "values", "size"),
    [
        ("resnet18", "ResNet", {"stages": (2, 2, 2, 2)}, 224),
        pytest.param("resnet50", "ResNet", {"stages": (3, 4, 6, 3), "bottleneck": True}, 224, marks=SLOW),
        pytest.param("wide_resnet50_2", "ResNet", {"stages": (3, 4, 6, 3), "bottleneck": True, "widen": 2}, 64, marks=SLOW),
        pytest.param("googlenet", "GoogLeNet", {}, 224, marks=SLOW),
        pytest.param("densenet121", "DenseNet", {}, 224, marks=SLOW),
        pytest.param("alexnet_single_tower", "AlexNet", {}, 224, marks=SLOW),
        pytest.param("vgg16", "VGG", {}, 224, marks=SLOW),
        pytest.param(
            "vgg11_bn", "VGG", {"stages": (1, 1, 2, 2, 2), "norm": True, "cells": 2, "units": 4096, "width": 4}, 64, marks=SLOW
        ),
    ],
)
def test_torchvision_s_weights_give_torchvision_s_logits(torch, peers, tmp_path, name, peer, values, size):
    torch.manual_seed(0)
    theirs = getattr(peers, peer)(**values).eval()
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    module = build(name, num_classes=1000, **{key: values[key] for key in ("width",) if key in values})
    variables = imported(torch, tmp_path, theirs, template(module, *images.shape))
    with torch.inference_mode():
        agree(jax.jit(module.apply)(variables, images), theirs(torch.tensor(images).permute(0, 3, 1, 2)))


@SLOW
def test_googlenet_s_auxiliary_logits_are_torchvision_s(torch, peers, tmp_path):
    """In training, over the batch's statistics: of eight images, as the variance of two is often near 0."""
    torch.manual_seed(0)
    theirs = peers.GoogLeNet(classes=10)
    images = np.random.default_rng(0).normal(size=(8, 96, 96, 3)).astype(np.float32)
    module = build("googlenet", num_classes=10)
    variables = imported(torch, tmp_path, theirs, template(module, *images.shape))
    with torch.no_grad():
        logits, first, second = theirs(torch.tensor(images).permute(0, 3, 1, 2))
    rngs, collections = {"dropout": jax.random.key(0)}, ["auxiliary", "batch_stats"]
    ours, updated = jax.jit(lambda v, x: module.apply(v, x, train=True, rngs=rngs, mutable=collections))(variables, images)
    agree(ours, logits, 1e-3)
    agree(updated["auxiliary"]["aux1"]["logits"][0], first, 1e-3)
    agree(updated["auxiliary"]["aux2"]["logits"][0], second, 1e-3)


@pytest.mark.parametrize("kind", some(["LSTM", "GRU", "RNN"], "LSTM"))
@pytest.mark.parametrize("tokens", [False, True])
def test_recurrent_weights_give_pytorch_s_outputs_over_ragged_sequences(torch, peers, tmp_path, kind, tokens):
    torch.manual_seed(0)
    draws, lengths = np.random.default_rng(0), np.array([9, 4, 1])
    x = draws.integers(0, 7, (3, 9)) if tokens else draws.normal(size=(3, 9, 5)).astype(np.float32)
    vocabulary = 7 if tokens else 0
    theirs = peers.Tagger(kind, 5, 6, 4, vocabulary, num_layers=2, bidirectional=not tokens)
    shared = {"hidden": (6, 6), "bidirectional": not tokens, "embedding": 5}
    module = build(kind.lower(), num_classes=4, output_steps=9, vocabulary=vocabulary, **shared)
    shapes = template(module, *x.shape, dtype=jnp.int32 if tokens else jnp.float32)
    variables = imported(torch, tmp_path, theirs, shapes)
    with torch.no_grad():
        expected = theirs(torch.tensor(x), torch.tensor(lengths))
    ours = jax.jit(module.apply)(variables, x, lengths=lengths)
    for row, length in enumerate(lengths):
        agree(ours[row, :length], expected[row, :length], 1e-5)


def test_cells_that_are_no_network_are_refused():
    shapes = template(build("gru", num_classes=4, output_steps=9, hidden=(6,)), 3, 9, 5)
    head = {"out.weight": np.ones((4, 6), np.float32), "out.bias": np.ones(4, np.float32)}
    weights.fit(cell(3) | head, shapes, "a file")
    for found, message in [
        (cell(3), "missing: params/head/bias, params/head/kernel; if weights are missing, use the --model"),
        (
            cell(3) | head | {"in.weight": head["out.weight"], "in.bias": head["out.bias"]},
            "missing: params/head/bias.*unexpected",
        ),
        (cell(3, prefix="encoder.") | cell(3, prefix="decoder.") | head, "unexpected: params/encoder/weight_ih_l0"),
        (cell(4) | head, "missing: params/layer0/hn/bias.*unexpected: params/layer0/ii/kernel"),
        (cell(2) | head, "unexpected: params/layer0/weight_ih, params/layer0/weight_hh"),
        (cell(3) | head | {"weight_hh_l0": np.ones(18, np.float32)}, "unexpected: params/layer0/weight_ih"),
        ({n: a for n, a in (cell(3) | head).items() if not n.startswith("bias_hh")}, "unexpected: params/layer0/weight_ih"),
        (cell(3, inputs=4) | head, r"shape: params/layer0/in/kernel is \[4, 6\], not \[5, 6\]"),
    ]:
        with pytest.raises(UsageError, match=message):
            weights.fit(found, shapes, "a file")


def test_a_grouped_convolution_is_pytorch_s(torch):
    theirs = torch.nn.Sequential(torch.nn.Conv2d(4, 6, 3, groups=2))
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 4)).astype(np.float32)
    ours = nn.Sequential([nn.Conv(6, (3, 3), padding="VALID", feature_group_count=2)])
    shapes = template(ours, *x.shape)
    found = {name.replace("0.", "layers.0."): array.numpy() for name, array in theirs.state_dict().items()}
    variables, _ = weights.fit(found, shapes, "a file")
    agree(ours.apply(variables, x), theirs(torch.tensor(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1), 1e-5)
