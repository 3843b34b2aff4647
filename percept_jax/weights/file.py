"""Writes a Flax module's variables to a safetensors file, and loads such a file, of this package or PyTorch, into a module.

Python's pickles are never opened, because they can run code.
"""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from percept_jax import files, paths
from percept_jax.errors import UsageError, first_line, in_a_line
from percept_jax.trees import by_path, flatten
from percept_jax.weights.torch_names import in_order, renamed, unwrapped

# `save` writes this into the header of its files.
_FORMAT = "percept_jax weights 1"
# A message names this many leaves, and counts the rest.
SHOWN = 8

# What to do about a fault, by its kind.
_ADVICE = {
    "missing": "if weights are missing, use the --model and its flags that the file was saved from",
    "unexpected": "this model does not have the unexpected weights: remove them from the file, or use the --model that has them",
}


def save(path: Path, variables: Mapping[str, Any]) -> None:
    """Writes variables under names like "params/conv1/kernel", in their own dtypes.

    Raises UsageError if `path` is a folder, a file that this function did not write, or a path where no file can be created;
    StorageError if writing fails.
    """
    from safetensors.numpy import save

    path = paths.output_path(path, "to")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give a file: --to=FILE.safetensors", "to")
    if os.path.lexists(path) and not _is_ours(path):
        raise UsageError(f"{path} already exists and is not an export, so it is not replaced; choose another name", "to")
    arrays = {name: np.asarray(array, order="C") for name, array in flatten(variables).items()}
    files.write_bytes(path, save(arrays, {"format": _FORMAT}))


def _is_ours(path: Path) -> bool:
    """Returns whether `save` has written this file."""
    from safetensors import SafetensorError, safe_open

    try:
        if path.is_symlink() or not path.is_file():
            return False
        with safe_open(path, "numpy") as file:
            return (file.metadata() or {}).get("format") == _FORMAT
    except (OSError, SafetensorError):
        return False


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of any safetensors file by name; floats of 16 bits are converted to float32.

    Raises UsageError if the file is missing or is not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    path = paths.user_path(path, "init_from")
    hint = "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
    if path.suffix in (".pt", ".pth", ".bin", ".ckpt"):
        raise UsageError(f"{path}: PyTorch's pickles are not opened, as they can run code; convert it with {hint}", "init_from")
    try:
        # Reading from a pipe may never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{path}: not a safetensors file, but a folder, a pipe or a device", "init_from")
        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file", "init_from") from None
    # NumPy does not have the dtype.
    except AttributeError as error:
        dtype = str(error).rpartition(" attribute ")[2].strip("'")
        raise UsageError(f"{path}: weights of {dtype} are not read; save them as float32 or bfloat16", "init_from") from error
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        reason = f"it holds pickles; convert it with {hint}" if _is_pickle(path) else first_line(error)
        raise UsageError(f"{path}: not a safetensors file: {reason}", "init_from") from error
    narrow = ("bfloat16", "float16")
    return {name: array.astype(np.float32) if array.dtype.name in narrow else array for name, array in arrays.items()}


def _is_pickle(path: Path) -> bool:
    """Returns whether a file begins like a file of torch.save: a zip file, or plain pickles."""
    try:
        with open(path, "rb") as file:
            return re.match(rb"PK\x03\x04|\x80[\x02-\x05]", file.read(4)) is not None
    except OSError:
        return False


def fit(found: Mapping[str, np.ndarray], template: Any, source: str, num_classes: int = 0) -> tuple[Any, list[str]]:
    """Returns variables with the structure and dtypes of the template, and the values of arrays from `read`.

    Every leaf must be found, in its shape, and every array must be used. The exception is a new head: if the output layer, and
    those of auxiliary heads, differ only in the number of classes, or if the file has no output layer at all, these layers keep
    the template's initial values.

    Args:
        found: arrays by this package's names, "params/conv1/kernel", or PyTorch's, "conv1.weight". Both may have the prefixes of
            wrappers, "module." or "model.backbone.".
        template: variables as the module initializes them, or their shapes.
        source: the name of the file in messages.
        num_classes: outputs of the template's head, which may be new; 0: a new head is not allowed.

    Returns:
        The variables, and the paths of the new head's leaves.

    Raises:
        UsageError: naming leaves that are missing, unexpected, of another shape, or not finite.
    """
    expected = by_path(template)
    found, origins = _renamed_arrays(found, expected, source)
    if any(name.startswith("params/inception") for name in expected) and not any(n.startswith("params/aux") for n in expected):
        # The model is a GoogLeNet without auxiliary heads.
        found = {name: array for name, array in found.items() if not re.match(r"\w+/aux\d/", name)}
    shared = [name for name in expected if name in found]
    missing = [name for name in expected if name not in found]
    misfits = [name for name in shared if found[name].shape != expected[name].shape]
    new = _new_head(misfits, missing, found, expected, num_classes)
    floats = [name for name in shared if name not in misfits and found[name].dtype.kind == "f"]
    # Values that overflow float32 are reported below.
    with np.errstate(over="ignore"):
        values = {name: np.asarray(found[name], expected[name].dtype, order="C") for name in floats}
    faults = {
        "missing": [name for name in missing if name not in new],
        "unexpected": [name + origins.get(name, "") for name in found if name not in expected],
        "shape": [
            f"{name} is {list(found[name].shape)}, not {list(expected[name].shape)}" for name in misfits if name not in new
        ],
        "not finite floats": [
            name for name in shared if name not in misfits and not (name in values and np.isfinite(values[name]).all())
        ],
    }
    if messages := [f"{fault}: {_some(names)}" for fault, names in faults.items() if names]:
        advice = [text for fault, text in _ADVICE.items() if faults[fault]]
        if any(re.match("[a-z_]+/aux", name) for name in faults["missing"]):
            advice.append("--auxiliary=false builds a GoogLeNet without auxiliary heads")
        raise UsageError("; ".join([f"{source}: {messages[0]}", *messages[1:], *advice]), "init_from")
    leaves = [leaf if name in new else values[name] for name, leaf in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(template), leaves), new


def _renamed_arrays(
    found: Mapping[str, np.ndarray], expected: Mapping[str, Any], source: str
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the arrays by this package's names, and for each renamed one a note with its name in the file, for messages."""
    if any(name.startswith("best/params/") for name in found):
        raise UsageError(f"{source} is a checkpoint of a run; give the run's directory, --init_from=RUN_DIR", "init_from")
    try:
        names = unwrapped(found, expected)
        found = {bare: found[name] for bare, name in names.items()}
        origins = {}
        if not any(name.startswith("params/") for name in found):
            found, origins = renamed(found, expected)
    except ValueError as error:
        raise UsageError(f"{source}: {error}", "init_from") from None
    origins = {name: names[origins.get(name, name)] for name in found if origins.get(name, name) in names}
    return found, {name: f" ({origin} in the file)" for name, origin in origins.items() if origin != name}


def _some(names: list[str]) -> str:
    """Returns the first few names, separated by commas, and the number of the rest."""
    return ", ".join(map(in_a_line, names[:SHOWN])) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _new_head(
    misfits: list[str], missing: list[str], found: Mapping[str, np.ndarray], expected: Mapping[str, Any], num_classes: int
) -> list[str]:
    """Returns the leaves of the output layers, in the order of `expected`, if these are new; else none.

    They are new if all misfits belong to output layers and differ only in the number of classes, or if the whole output layer is
    missing and nothing else.
    """
    layers = {name.rpartition("/")[0] for name in misfits}
    for name, leaf in expected.items():
        layer, _, kind = name.rpartition("/")
        if layer in layers:
            for_classes = name in misfits and leaf.shape == (*found[name].shape[:-1], num_classes)
            if kind not in ("kernel", "bias") or not for_classes:
                return []
    absent = missing if num_classes and missing == _head(expected, num_classes) else []
    outputs = [layer for layer in layers if not layer.startswith("params/aux")] + absent[:1]
    new = [name for name in expected if name in misfits or name in absent]
    return new if len(outputs) == 1 and len(new) < len(expected) else []


def _head(expected: Mapping[str, Any], num_classes: int) -> list[str]:
    """Returns the leaves of the output layer: the last by name of the top-level dense layers with an output for each class."""
    shapes = {name: tuple(leaf.shape) for name, leaf in expected.items()}
    layers = [name.removesuffix("/bias") for name in expected if re.fullmatch("params/[^/]+/bias", name)]
    full = [layer for layer in layers if len(shapes.get(f"{layer}/kernel", ())) == 2]
    heads = [layer for layer in full if shapes[f"{layer}/bias"] == (num_classes,)]
    last = max(heads, key=in_order, default="")
    return [name for name in expected if last and name.startswith(f"{last}/")]
