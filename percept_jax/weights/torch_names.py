"""Converts PyTorch's names and layouts (of torchvision's models and of nn.LSTM, nn.GRU and nn.RNN) to those of this package.

PyTorch's kernels are `[out, in, rows, columns]` or `[out, in]`, those here are `[rows, columns, in, out]` or `[in, out]`. Most
networks are named after torchvision's, level by level: "layer1.0.conv1.weight" is "params/layer1_0/conv1/kernel".
"""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

# The prefixes that wrappers, trainers and whole checkpoints add to the names of a module's arrays.
WRAPPERS = ("module", "_orig_mod", "model", "backbone", "net", "network", "state_dict", "model_state_dict")

_STATISTICS = {"running_mean": "mean", "running_var": "var"}
_CELL = re.compile(r"(.*?)((?:weight|bias)_[ih]h)_l(\d+(?:_reverse)?)")
# The gates of LSTM, GRU and Elman's cell by their number, in PyTorch's order.
_GATES = {4: "ifgo", 3: "rzn", 1: ("",)}


def unwrapped(found: Collection[str], expected: Collection[str]) -> dict[str, str]:
    """Returns names without the prefixes of wrappers, such as "module._orig_mod.model.", each with its original name.

    Args:
        found: names of leaves, this package's or PyTorch's.
        expected: paths of the variables' leaves; the name of a layer in them is not a wrapper.

    Raises:
        ValueError: two of the names are the same without their prefixes.
    """
    layers = {path.split("/")[1] for path in expected if "/" in path}
    prefixes = "|".join(word for word in WRAPPERS if word not in layers)
    names: dict[str, str] = {}
    for name in found:
        bare = re.sub(rf"^(?:(?:{prefixes})[./])+(?=.)", "", name) if prefixes else name
        if bare in names:
            raise ValueError(f"{name} and {names[bare]} are the same leaf of this model; save the file with only one of them")
        names[bare] = name
    return names


def renamed(found: Mapping[str, np.ndarray], expected: Collection[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns a PyTorch module's arrays by the paths of Flax variables, in their layout; and the original name of each path.

    An array that fits nowhere keeps a path that shows its origin. The leaves of recurrent cells have no original name, because
    they are made from parts of several arrays. Raises ValueError if two arrays get the same path.

    Args:
        found: arrays by the names of a state dict.
        expected: paths of the variables' leaves; the numbered layers of AlexNet and VGG are named by them.
    """
    origins: dict[str, str] = {}
    found = {name: array for name, array in found.items() if not name.endswith("num_batches_tracked")}
    cells = {name: match.groups() for name in found if (match := _CELL.fullmatch(name))}
    # With several recurrent modules it is unknown which is which, so that they are not converted.
    several = len({module for module, _, _ in cells.values()}) > 1
    arrays, layers = ({}, {}) if several else _recurrent(found, cells)
    layers |= _numbered(found, expected)
    for name, array in found.items():
        if several or name not in cells:
            layer, _, leaf = name.rpartition(".")
            path, array = _variable(layers.get(layer) or _levels(layer), leaf, array)
            if path in arrays:
                raise ValueError(f"{name} and {origins.get(path, path)} are the same leaf of this model; save only one of them")
            arrays[path], origins[path] = array, name
    last = max((path for path in expected if re.fullmatch(r"params/conv[\d_]+/kernel", path)), key=in_order, default="")
    flat = {"params/fc6/kernel": last} if "params/fc8/kernel" in expected else {}
    flat |= {f"params/{head}/fc1/kernel": f"params/{head}/conv/conv/kernel" for head in ("aux1", "aux2")}
    for full, conv in flat.items():
        if full in arrays and conv in arrays:
            arrays[full] = _channels_last(arrays[full], arrays[conv].shape[-1])
    return arrays, origins


def _levels(layer: str) -> str:
    """Returns "layer1.0.conv1" as "layer1_0/conv1"; PyTorch's first DenseNets have "norm.1" for "norm1"."""
    layer = re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)$", r"\1\2", layer)
    return re.sub(r"\.(\d+)(?=\.|$)", r"_\1", layer).replace(".", "/")


def _variable(layer: str, leaf: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """Returns the path of a layer's array, and the array in the layout of this package."""
    if leaf in _STATISTICS:
        return f"batch_stats/{layer}/{_STATISTICS[leaf]}", array
    if leaf != "weight":
        return f"params/{layer}/{leaf}", array
    if array.ndim < 2:
        return f"params/{layer}/scale", array
    if layer == "embed":
        return "params/embed/embedding", array
    return f"params/{layer}/kernel", array.transpose(*range(2, array.ndim), 1, 0)


def in_order(name: str) -> list[Any]:
    """Returns a sort key that orders "features.10" after "features.8"."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _numbered(found: Mapping[str, np.ndarray], expected: Collection[str]) -> dict[str, str]:
    """Returns the names here of AlexNet's and VGG's numbered layers, such as "features.3", in the order of the layers."""
    names = sorted({path.split("/")[1] for path in expected}, key=in_order) if "params/fc8/kernel" in expected else []
    convs, full = (iter([name for name in names if name.startswith(kind)]) for kind in ("conv", "fc"))
    layers, last = {}, ""
    for layer in sorted({name.rpartition(".")[0] for name in found}, key=in_order):
        weight = found.get(f"{layer}.weight")
        if weight is None or not re.fullmatch(r"(features|classifier)\.\d+", layer):
            continue
        if weight.ndim == 1:
            layers[layer] = last.replace("conv", "bn")
        else:
            layers[layer] = last = next(convs if weight.ndim == 4 else full, "")
    return layers


def _channels_last(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Returns the kernel of a dense layer after square maps, whose inputs are `[channels, rows, columns]`, with channels last."""
    side = math.isqrt(len(kernel) // max(1, channels))
    if len(kernel) != channels * side**2:
        # The kernel does not have the expected shape either, which is reported later.
        return kernel
    return np.moveaxis(kernel.reshape(channels, side, side, *kernel.shape[1:]), 0, 2).reshape(kernel.shape)


def _recurrent(
    found: Mapping[str, np.ndarray], cells: Mapping[str, tuple[str, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the leaves of a recurrent module's cells, and the names of a sole linear layer and a sole embedding."""
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, (_, part, number) in cells.items():
        parts.setdefault(f"params/layer{number}", {})[part] = found[name]
    arrays = {path: array for layer, part in parts.items() for path, array in _cell(layer, part).items()}
    around = [name.removesuffix(".weight") for name in found if name.endswith(".weight")] if cells else []
    linear = [layer for layer in around if f"{layer}.bias" in found]
    # Embeddings have no bias.
    tables = [layer for layer in around if f"{layer}.bias" not in found]
    return arrays, {layers[0]: name for name, layers in (("head", linear), ("embed", tables)) if len(layers) == 1}


def _cell(layer: str, part: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns a cell's leaves.

    PyTorch stacks the gates in one array `[gates * units, inputs]`. Each gate has two biases, whose sum is taken here, except for
    the candidate of GRU: its second bias is inside the term that the reset gate scales.
    """
    hidden = part.get("weight_hh", np.empty(0))
    units = hidden.shape[-1] if hidden.ndim else 0
    gates = next((gates for count, gates in _GATES.items() if hidden.shape == (count * units, units)), "")
    rows = len(gates) * units
    sizes = {"weight_ih": 2, "bias_ih": 1, "bias_hh": 1}
    whole = len(part) == 4 and all(part[name].ndim == ndim and len(part[name]) == rows for name, ndim in sizes.items())
    if not gates or not whole:
        return {f"{layer}/{name}": array for name, array in part.items()}
    arrays = {}
    for i, gate in enumerate(gates):
        of_gate = slice(i * units, (i + 1) * units)
        for side in "ih":
            arrays[f"{layer}/{side}{gate}/kernel"] = part[f"weight_{side}h"][of_gate].T
        input_bias, hidden_bias = part["bias_ih"][of_gate], part["bias_hh"][of_gate]
        if gate == "n":
            arrays |= {f"{layer}/in/bias": input_bias, f"{layer}/hn/bias": hidden_bias}
        else:
            arrays[f"{layer}/{'h' if len(gates) == 4 else 'i'}{gate}/bias"] = input_bias + hidden_bias
    return arrays
