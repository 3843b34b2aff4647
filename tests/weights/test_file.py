"""Files of weights: how they are read, and what is refused."""

import json
import os
import re

import jax
import ml_dtypes
import numpy as np
import pytest
from helpers.weights import cell, template
from safetensors.numpy import save_file

from percept_jax.errors import UsageError
from percept_jax.models import build
from percept_jax.trees import flatten
from percept_jax.weights import file as weights

SMALL = {"stages": (1, 1), "width": 4, "stem": "small"}


def filled(shapes, seed=0):
    draws = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: draws.normal(size=leaf.shape).astype(leaf.dtype), shapes)


def test_variables_come_back_from_a_file_bit_by_bit(tmp_path):
    variables = filled(template(build("resnet18", num_classes=5, **SMALL), 2, 8, 8, 3))
    weights.save(tmp_path / "new" / "w.safetensors", variables)
    found = weights.read(tmp_path / "new" / "w.safetensors")
    assert {"params/layer1_0/conv1/kernel", "batch_stats/bn1/mean"} <= set(found)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["w.safetensors"]
    again, new = weights.fit(found, jax.tree.map(np.zeros_like, variables), "a file", num_classes=5)
    assert new == []
    jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_dtypes_are_kept_in_the_file_and_the_template_s_in_the_variables(tmp_path):
    kinds = {"a": np.float32, "b": np.float64, "c": ml_dtypes.bfloat16, "d": np.float16}
    params = {name: np.arange(6).reshape(2, 3).T.astype(dtype) for name, dtype in kinds.items()}
    weights.save(tmp_path / "w.safetensors", {"params": params | {"e": np.float32(7)}})
    found = weights.read(tmp_path / "w.safetensors")
    assert [found[f"params/{name}"].dtype.name for name in "abcd"] == ["float32", "float64", "float32", "float32"]
    for dtype in (np.float32, np.float64):
        shapes = {"params": {name: jax.ShapeDtypeStruct(np.shape(a), dtype) for name, a in (params | {"e": np.ones(())}).items()}}
        variables, _ = weights.fit(found, shapes, "a file")
        for name, array in variables["params"].items():
            assert (array.dtype, array.shape) == (dtype, shapes["params"][name].shape)
            np.testing.assert_array_equal(array, params.get(name, 7))


def faulty(change, num_classes=0):
    """What is said of a network's weights after a change of their arrays by path."""
    shapes = template(build("resnet18", num_classes=5, **SMALL), 2, 8, 8, 3)
    found = flatten(filled(shapes))
    change(found)
    with pytest.raises(UsageError) as error:
        weights.fit(found, shapes, "w.safetensors", num_classes)
    return str(error.value)


def test_every_fault_of_a_file_is_named_at_once():
    def change(found):
        del found["params/conv1/kernel"], found["batch_stats/bn1/mean"]
        found["params/conv2/kernel"] = np.ones(3, np.float32)
        found["params/bn1/scale"] = np.ones((4, 1), np.float32)
        found["params/fc/kernel"] = found["params/fc/kernel"][:, :4]
        found["params/bn1/bias"] = np.array([1, 2, np.nan, 3], np.float32)
        found["batch_stats/layer1_0/bn1/var"] = np.full(4, 1e39)  # too large for float32
        found["params/layer1_0/bn1/scale"] = np.ones(4, np.int8)  # quantised

    assert faulty(change) == (
        "--init_from: w.safetensors: missing: batch_stats/bn1/mean, params/conv1/kernel; unexpected: params/conv2/kernel; "
        "shape: params/bn1/scale is [4, 1], not [4], params/fc/kernel is [8, 4], not [8, 5]; "
        "not finite floats: batch_stats/layer1_0/bn1/var, params/bn1/bias, params/layer1_0/bn1/scale; "
        "if weights are missing, use the --model and its flags that the file was saved from; "
        "this model does not have the unexpected weights: remove them from the file, or use the --model that has them"
    )


def test_a_long_list_of_faults_is_cut():
    message = faulty(lambda found: [found.pop(name) for name in list(found)])
    assert message.count("params/") + message.count("batch_stats/") == weights.SHOWN
    assert re.search(r"batch_stats/layer2_0/bn1/var and \d+ more; if weights are missing, ", message)


@pytest.mark.parametrize(("of_torch", "name", "old"), [(False, "resnet18", 3), (True, "resnet18", 9), (False, "googlenet", 3)])
def test_a_head_for_other_classes_keeps_its_initial_values(of_torch, name, old):
    values = SMALL if name == "resnet18" else {"stem": "small"}
    shapes = template(build(name, num_classes=5, **values), 2, 16, 16, 3)
    start, trained = filled(shapes, 1), flatten(filled(template(build(name, num_classes=old, **values), 2, 16, 16, 3)))
    found = {torch_s(path): in_torch_s_layout(array) for path, array in trained.items()} if of_torch else trained
    variables, new = weights.fit(found, start, "a file", num_classes=5)
    heads = ["aux1/fc2", "aux2/fc2", "fc"] if name == "googlenet" else ["fc"]
    assert new == [f"params/{head}/{leaf}" for head in heads for leaf in ("bias", "kernel")]
    for path, array in flatten(variables).items():
        np.testing.assert_array_equal(array, flatten(start)[path] if path in new else trained[path])
    with pytest.raises(UsageError, match=rf"shape: .*params/fc/bias is \[{old}\], not \[5\]"):
        weights.fit(found, start, "a file")


def torch_s(path):
    """A ResNet's name in PyTorch."""
    ours = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    *levels, leaf = path.split("/")[1:]
    return ".".join([re.sub(r"_(\d)", r".\1", level) for level in levels] + [ours[leaf]])


def in_torch_s_layout(array):
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.update({"params/fc/bias": np.ones(4, np.float32)}),  # the kernel fits
        lambda found: found.update({"params/fc/kernel": np.ones((7, 4), np.float32), "params/fc/bias": np.ones(4, np.float32)}),
        lambda found: found.update({"params/bn1/scale": np.ones(5, np.float32), "params/bn1/bias": np.ones(5, np.float32)}),
        lambda found: found.pop("params/fc/bias"),
    ],
)
def test_what_differs_in_more_than_the_classes_is_no_new_head(change):
    assert re.search("shape: params/|missing: params/fc/bias", faulty(change, num_classes=5))


def test_two_layers_with_an_output_a_class_are_not_one_head():
    def shapes(classes):
        layer = {"kernel": np.ones((3, classes), np.float32), "bias": np.ones(classes, np.float32)}
        return {"params": {"first": layer, "second": layer, "stem": {"kernel": np.ones((3, 3), np.float32)}}}

    with pytest.raises(UsageError, match=r"shape: params/first/bias is \[4\], not \[5\], params/first/kernel"):
        weights.fit(flatten(shapes(4)), shapes(5), "a file", num_classes=5)


def test_a_network_that_is_all_head_takes_nothing_over():
    shapes = template(build("linear", num_classes=5), 2, 8, 8, 1)
    with pytest.raises(UsageError, match="shape"):
        weights.fit(flatten(filled(template(build("linear", num_classes=4), 2, 8, 8, 1))), shapes, "a file", num_classes=5)


def test_googlenet_without_auxiliary_heads_takes_the_weights_of_one_with_them():
    shapes, more = (template(build("googlenet", num_classes=5, stem="small", auxiliary=a), 2, 16, 16, 3) for a in (False, True))
    variables, new = weights.fit(flatten(filled(more)), shapes, "a file")
    assert new == []
    assert "aux1" not in variables["params"]
    with pytest.raises(UsageError, match=r"missing: batch_stats/aux1/conv/bn/mean.* and 10 more; .*--auxiliary=false builds"):
        weights.fit(flatten(variables), more, "a file")


def test_names_of_pytorch_s_first_densenets_are_understood():
    module = build("densenet_bc_100", num_classes=5, stages=(1,), growth=4)
    variables = filled(template(module, 2, 8, 8, 3))
    old = {}
    for path, array in flatten(variables).items():
        name = re.sub(r"(denselayer1\.(?:norm|conv))(\d)", r"\1.\2", torch_s(path))
        old[name] = in_torch_s_layout(array)
    old["features.norm5.num_batches_tracked"] = np.array(3)
    assert {"features.denseblock1.denselayer1.norm.1.weight", "features.denseblock1.denselayer1.conv.2.weight"} <= set(old)
    again, _ = weights.fit(old, variables, "a file")
    jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_a_vgg_that_is_deeper_or_shallower_is_refused_by_the_names_of_its_layers():
    deep, shallow = (template(build(name, num_classes=5, width=4, stem="small"), 2, 32, 32, 3) for name in ("vgg13", "vgg11"))
    found, numbers = {}, iter(range(99))
    for layer in sorted({path.split("/")[1] for path in flatten(filled(deep))}):
        part = f"{'classifier' if layer.startswith('fc') else 'features'}.{next(numbers)}"
        for leaf, name in (("kernel", "weight"), ("bias", "bias")):
            found[f"{part}.{name}"] = in_torch_s_layout(np.ones(deep["params"][layer][leaf].shape, np.float32))
    weights.fit(found, deep, "a file")
    with pytest.raises(UsageError, match=r"unexpected: params/features_8/.*; shape: params/conv2_1/bias is \[4\], not \[8\]"):
        weights.fit(found, shallow, "a file")


WRAPPED = ["module.", "_orig_mod.", "model.", "backbone.", "module._orig_mod.model.", "state_dict.model.backbone."]


def small_of_torch(classes=5):
    """A small ResNet's initial variables, other ones as they were trained, and these in PyTorch's names and layouts."""
    shapes = template(build("resnet18", num_classes=classes, **SMALL), 2, 8, 8, 3)
    trained = flatten(filled(shapes))
    return filled(shapes, 1), trained, {torch_s(path): in_torch_s_layout(array) for path, array in trained.items()}


@pytest.mark.parametrize("prefix", WRAPPED)
@pytest.mark.parametrize("but_the_head", [False, True])
def test_what_wrappers_put_before_the_names_is_taken_off(tmp_path, prefix, but_the_head):
    start, trained, found = small_of_torch()
    found |= {"bn1.num_batches_tracked": np.array(3), "layer1.0.bn1.num_batches_tracked": np.array(3)}
    found = {name if but_the_head and name.startswith("fc.") else prefix + name: array for name, array in found.items()}
    save_file({name: np.ascontiguousarray(array) for name, array in found.items()}, tmp_path / "w.safetensors")
    variables, new = weights.fit(weights.read(tmp_path / "w.safetensors"), start, "a file", 5)
    assert new == []
    for path, array in flatten(variables).items():
        np.testing.assert_array_equal(array, trained[path])


@pytest.mark.parametrize("prefix", ["model/", "module.", "model_state_dict."])
def test_our_own_names_may_have_a_wrapper_s_before_them_too(prefix):
    start, trained, _ = small_of_torch()
    variables, new = weights.fit({prefix + name: array for name, array in trained.items()}, start, "a file", 5)
    assert new == []
    jax.tree.map(np.testing.assert_array_equal, flatten(variables), trained)


def test_a_layer_of_the_model_s_own_is_no_wrapper():
    shapes = {"params": {name: {"bias": np.ones(2, np.float32)} for name in ("backbone", "neck")}}
    again, _ = weights.fit({"backbone.bias": np.full(2, 2, np.float32), "model.neck.bias": np.ones(2, np.float32)}, shapes, "a")
    assert again["params"]["backbone"]["bias"].tolist() == [2, 2]


def test_wrapped_recurrent_and_numbered_layers_are_found():
    shapes = template(build("gru", num_classes=4, output_steps=9, hidden=(6,)), 3, 9, 5)
    head = {"out.weight": np.ones((4, 6), np.float32), "out.bias": np.ones(4, np.float32)}
    weights.fit({f"module.model.{name}": a for name, a in (cell(3, prefix="gru.") | head).items()}, shapes, "a file")
    variables, new = weights.fit({f"backbone.{name}": a for name, a in cell(3, prefix="gru.").items()}, shapes, "a file", 4)
    assert new == ["params/head/bias", "params/head/kernel"]
    assert variables["params"]["layer0"]["in"]["kernel"].shape == (5, 6)


@pytest.mark.parametrize("names", [("fc.bias", "model.fc.bias"), ("layer1.0.bn1.bias", "layer1_0.bn1.bias")])
def test_two_arrays_for_one_leaf_are_refused(names):
    start, _, found = small_of_torch()
    found |= dict.fromkeys(names, found[names[0]])
    with pytest.raises(UsageError, match=rf"{re.escape(names[1])} and {re.escape(names[0])} are the same leaf"):
        weights.fit(found, start, "a file", 5)


@pytest.mark.parametrize(
    ("name", "head"), [("resnet18", "fc"), ("mlp", "Dense_2"), ("densenet_bc_100", "classifier"), ("cnn", "Dense_1")]
)
def test_a_file_without_a_head_leaves_the_head_as_it_is_drawn(name, head):
    values = {"resnet18": SMALL, "mlp": {"hidden": (5, 5)}, "densenet_bc_100": {"stages": (1,), "growth": 4}, "cnn": {}}[name]
    shapes = template(build(name, num_classes=5, **values), 2, 8, 8, 3)
    start, trained = filled(shapes, 1), flatten(filled(shapes))
    found = {path: array for path, array in trained.items() if not path.startswith(f"params/{head}/")}
    variables, new = weights.fit(found, start, "a file", num_classes=5)
    assert new == [f"params/{head}/bias", f"params/{head}/kernel"]
    for path, array in flatten(variables).items():
        np.testing.assert_array_equal(array, flatten(start)[path] if path in new else trained[path])
    with pytest.raises(UsageError, match=f"missing: params/{head}/bias, params/{head}/kernel; if weights are missing, use"):
        weights.fit(found, start, "a file")


@pytest.mark.parametrize("absent", [["params/Dense_0/kernel", "params/Dense_0/bias"], ["params/Dense_2/bias"]])
def test_another_layer_or_half_a_head_is_missing(absent):
    """Also where the layer has as many outputs as there are classes."""
    shapes = template(build("mlp", num_classes=5, hidden=(5, 5)), 2, 8, 8, 3)
    found = {path: array for path, array in flatten(filled(shapes)).items() if path not in absent}
    with pytest.raises(UsageError, match=f"missing: {', '.join(sorted(absent))};"):
        weights.fit(found, shapes, "a file", num_classes=5)


def test_a_file_of_nothing_is_no_file_without_a_head():
    shapes = template(build("linear", num_classes=5), 2, 8, 8, 1)
    with pytest.raises(UsageError, match="missing: params/Dense_0/bias, params/Dense_0/kernel"):
        weights.fit({}, shapes, "a file", num_classes=5)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("fc.extra", r"unexpected: params/fc/extra \(fc.extra in the file\); this model does not have the"),
        ("model.fc.extra", r"unexpected: params/fc/extra \(model.fc.extra in the file\)"),
        ("optimizer.state.0.exp_avg", r"unexpected: params/optimizer/state_0/exp_avg \(optimizer.state.0.exp_avg in the file\)"),
        ("aux1.fc2.weight", r"unexpected: params/aux1/fc2/scale \(aux1.fc2.weight in the file\)"),
        ("head.0.weight", r"unexpected: params/head_0/scale"),
        ("a\nb.weight", r"unexpected: params/a\\nb/scale \(a\\nb.weight in the file\)"),
        ("", "unexpected: params//"),
    ],
)
def test_an_extra_leaf_is_named_as_the_file_names_it_with_what_to_do(extra, said):
    start, _, found = small_of_torch()
    with pytest.raises(UsageError, match=said) as error:
        weights.fit(found | {extra: np.ones(3, np.float32)}, start, "a file", 5)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_a_run_is_told_from_weights():
    with pytest.raises(UsageError, match=r"x is a checkpoint of a run; give the run's directory, --init_from=RUN_DIR"):
        weights.fit({"best/params/fc/bias": np.ones(3), "state/step": np.ones(())}, small_of_torch()[0], "x")


def test_arrays_of_odd_shapes_end_in_a_line():
    """A property: whatever the shapes of a recurrent module's arrays are."""
    shapes = template(build("gru", num_classes=4, output_steps=9, hidden=(6,)), 3, 9, 5)
    whole = cell(3) | {"out.weight": np.ones((4, 6), np.float32), "out.bias": np.ones(4, np.float32)}
    for name in whole:
        for shape in ((), (0,), (17,), (18,), (18, 6, 1), (0, 0)):
            if shape != whole[name].shape:
                with pytest.raises(UsageError):
                    weights.fit(whole | {name: np.ones(shape, np.float32)}, shapes, "a file", 4)


def raw(header, data=b""):
    """A safetensors file with a header of any kind."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + data


def one(dtype, size, shape=(1,)):
    return raw({"params/a": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}, b"\0" * size)


DAMAGED = {
    "nothing": b"", "short": b"abc", "huge header": b"\xff" * 7 + b"\x3f{}", "a list": raw([]), "a number": raw(3),
    "null": raw(None),
    "no JSON": raw(b"{"), "no UTF-8": raw(b'{"\xff": 1}'), "deep": raw(b"[" * 100_000), "metadata": raw({"__metadata__": 3}),
    "unknown dtype": one("X9", 4), "offsets": one("F32", 8), "huge shape": one("F32", 4, [2**40, 2**40]),
    "negative": one("F32", 4, [-1]),
    "F8": one("F8_E4M3", 1), "F8_E8M0": one("F8_E8M0", 1), "F4": one("F4", 1, [2]),
    "a pickle": b"\x80\x04\x95\x0b\0\0\0\0\0\0\0}\x94.", "PyTorch's": b"PK\x03\x04" + bytes(100),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_told_of_in_a_line(tmp_path, name):
    path = tmp_path / "w.safetensors"
    path.write_bytes(DAMAGED[name])
    with pytest.raises(UsageError) as error:
        weights.read(path)
    assert str(error.value).startswith(f"--init_from: {path}: ")
    assert "\n" not in str(error.value)
    if name in ("a pickle", "PyTorch's"):
        assert "it holds pickles; convert it with safetensors.torch.save_file" in str(error.value)
    if name.startswith("F"):
        assert "are not read; save them as float32" in str(error.value)


@pytest.mark.parametrize(("dtype", "size"), [("I64", 8), ("BOOL", 1), ("C64", 8), ("U8", 1)])
def test_what_is_no_float_is_no_weight(tmp_path, dtype, size):
    (tmp_path / "w.safetensors").write_bytes(one(dtype, size))
    with pytest.raises(UsageError, match="not finite floats: params/a"):
        weights.fit(weights.read(tmp_path / "w.safetensors"), {"params": {"a": np.ones(1, np.float32)}}, "a file")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match="not a safetensors file, but a folder"):
        weights.read(tmp_path / "w.safetensors")


def test_weights_are_not_written_where_there_is_a_folder(tmp_path):
    (tmp_path / "w.safetensors").mkdir()
    with pytest.raises(UsageError, match="is a folder; give a file"):
        weights.save(tmp_path / "w.safetensors", {"params": {"a": np.ones(1, np.float32)}})


def test_files_that_hold_no_weights_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(UsageError, match=f"^--init_from: {path}: there is no such file"):
        weights.read(path)
    save_file({"params/a": np.ones((100, 100), np.float32)}, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsageError, match=f"^--init_from: {path}: not a safetensors file: "):
        weights.read(path)
    path.write_text("not weights")
    with pytest.raises(UsageError, match="not a safetensors file"):
        weights.read(path)
    with pytest.raises(UsageError, match="not a safetensors file"):
        weights.read(tmp_path)
    for suffix in (".pt", ".pth", ".bin", ".ckpt"):
        with pytest.raises(UsageError, match=rf"w\{suffix}: PyTorch's pickles are not opened.*safetensors.torch.save_file"):
            weights.read(tmp_path / f"w{suffix}")
