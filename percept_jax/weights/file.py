"""Weights by themselves: a Flax module's variables in a safetensors file, and such a file, ours or PyTorch's, in a module.

Python's pickles are never opened: they run what a file says.
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

# In the header of what `save` writes.
_FORMAT = "percept_jax weights 1"
# Leaves that a message names before it counts the rest.
SHOWN = 8

# What to do about a fault, by its kind.
_ADVICE = {
    "missing": "for what is missing, take the --model and its flags that the file was saved from",
    "unexpected": "what is unexpected is no part of this model: save the file without it, or take the --model that has it",
}


def save(path: Path, variables: Mapping[str, Any]) -> None:
    """Writes variables under names like "params/conv1/kernel", in the dtypes that they have.

    Raises UsageError where `path` is a folder, or a file that this function has not written, or nothing can be made there;
    StorageError where the disk refuses.
    """
    from safetensors.numpy import save

    path = paths.output_path(path, "to")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give a file: --to=FILE.safetensors", "to")
    if os.path.lexists(path) and not _is_ours(path):
        raise UsageError(f"{path} is there, and is no export; it is not replaced, choose another name", "to")
    arrays = {name: np.asarray(array, order="C") for name, array in flatten(variables).items()}
    files.write_bytes(path, save(arrays, {"format": _FORMAT}))


def _is_ours(path: Path) -> bool:
    """Whether a file is one that `save` has written."""
    from safetensors import SafetensorError, safe_open

    try:
        if path.is_symlink() or not path.is_file():
            return False
        with safe_open(path, "numpy") as file:
            return (file.metadata() or {}).get("format") == _FORMAT
    except (OSError, SafetensorError):
        return False


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of any safetensors file, by the names that it gives them; 16 bits are widened to float32.

    Raises UsageError where the file is missing, or is something else.
    """
    from safetensors import SafetensorError, safe_open

    path = paths.user_path(path, "init_from")
    hint = "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
    if path.suffix in (".pt", ".pth", ".bin", ".ckpt"):
        raise UsageError(f"{path}: PyTorch's pickles are not opened, as they can run code; convert it with {hint}", "init_from")
    try:
        # To read from a pipe may never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{path}: not a safetensors file, and no file at all: a folder, a pipe or a device", "init_from")
        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file", "init_from") from None
    # Of a dtype that NumPy has not.
    except AttributeError as error:
        dtype = str(error).rpartition(" attribute ")[2].strip("'")
        raise UsageError(f"{path}: weights of {dtype} are not read; save them as float32 or bfloat16", "init_from") from error
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        said = f"but pickles; convert it with {hint}" if _is_pickle(path) else first_line(error)
        raise UsageError(f"{path}: not a safetensors file: {said}", "init_from") from error
    narrow = ("bfloat16", "float16")
    return {name: array.astype(np.float32) if array.dtype.name in narrow else array for name, array in arrays.items()}


def _is_pickle(path: Path) -> bool:
    """Whether a file begins like what torch.save writes: a zip file, or bare pickles."""
    try:
        with open(path, "rb") as file:
            return re.match(rb"PK\x03\x04|\x80[\x02-\x05]", file.read(4)) is not None
    except OSError:
        return False


def fit(found: Mapping[str, np.ndarray], template: Any, source: str, num_classes: int = 0) -> tuple[Any, list[str]]:
    """Variables of the template's structure and dtypes, filled with arrays that `read` has returned.

    Each leaf is found, in its shape, and each array is used, or nothing is. The exception is a new head: where the output
    layer, and those of auxiliary heads, differ in the number of classes only, or the file has no output layer at all, they
    keep the template's initial values.

    Args:
        found: arrays by our names, "params/conv1/kernel", or PyTorch's, "conv1.weight". Either may have what wrappers put
            before a name, "module." or "model.backbone.".
        template: variables as the module initializes them, or their shapes.
        source: the file, for messages.
        num_classes: outputs of the template's head, which may be new; 0: it may not.

    Returns:
        The variables, and the paths of the new head's leaves.

    Raises:
        UsageError: naming what is missing, unexpected, of another shape, or not finite.
    """
    wanted = by_path(template)
    found, origins = _in_our_names(found, wanted, source)
    if any(name.startswith("params/inception") for name in wanted) and not any(n.startswith("params/aux") for n in wanted):
        # GoogLeNet built without.
        found = {name: array for name, array in found.items() if not re.match(r"\w+/aux\d/", name)}
    shared = [name for name in wanted if name in found]
    missing = [name for name in wanted if name not in found]
    misfits = [name for name in shared if found[name].shape != wanted[name].shape]
    new = _new_head(misfits, missing, found, wanted, num_classes)
    floats = [name for name in shared if name not in misfits and found[name].dtype.kind == "f"]
    # What float32 cannot hold is told of below.
    with np.errstate(over="ignore"):
        values = {name: np.asarray(found[name], wanted[name].dtype, order="C") for name in floats}
    faults = {
        "missing": [name for name in missing if name not in new],
        "unexpected": [name + origins.get(name, "") for name in found if name not in wanted],
        "shape": [f"{name} is {list(found[name].shape)}, not {list(wanted[name].shape)}" for name in misfits if name not in new],
        "not finite floats": [
            name for name in shared if name not in misfits and not (name in values and np.isfinite(values[name]).all())
        ],
    }
    if told := [f"{fault}: {_some(names)}" for fault, names in faults.items() if names]:
        advice = [said for fault, said in _ADVICE.items() if faults[fault]]
        if any(re.match("[a-z_]+/aux", name) for name in faults["missing"]):
            advice.append("a GoogLeNet without auxiliary heads is built with --auxiliary=false")
        raise UsageError("; ".join([f"{source}: {told[0]}", *told[1:], *advice]), "init_from")
    leaves = [leaf if name in new else values[name] for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(template), leaves), new


def _in_our_names(
    found: Mapping[str, np.ndarray], wanted: Mapping[str, Any], source: str
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays by our names, and by these what a message adds: the name in the file, where that is another one."""
    if any(name.startswith("best/params/") for name in found):
        raise UsageError(f"{source} is a checkpoint of a run: give the run's directory, --init_from=RUN_DIR", "init_from")
    try:
        names = unwrapped(found, wanted)
        found = {ours: found[theirs] for ours, theirs in names.items()}
        origins = {}
        if not any(name.startswith("params/") for name in found):
            found, origins = renamed(found, wanted)
    except ValueError as error:
        raise UsageError(f"{source}: {error}", "init_from") from None
    origins = {name: names[origins.get(name, name)] for name in found if origins.get(name, name) in names}
    return found, {name: f" ({origin} in the file)" for name, origin in origins.items() if origin != name}


def _some(names: list[str]) -> str:
    """Names between commas, the first few of many."""
    return ", ".join(map(in_a_line, names[:SHOWN])) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _new_head(
    misfits: list[str], missing: list[str], found: Mapping[str, np.ndarray], wanted: Mapping[str, Any], num_classes: int
) -> list[str]:
    """The leaves of the output layers, in the order of `wanted`, where these are new; else none.

    They are where the misfits are all of output layers and differ in the number of classes only; or where nothing but the
    output layer is missing, and all of it.
    """
    layers = {name.rpartition("/")[0] for name in misfits}
    for name, leaf in wanted.items():
        layer, _, kind = name.rpartition("/")
        if layer in layers:
            for_classes = name in misfits and leaf.shape == (*found[name].shape[:-1], num_classes)
            if kind not in ("kernel", "bias") or not for_classes:
                return []
    absent = missing if num_classes and missing == _head(wanted, num_classes) else []
    outputs = [layer for layer in layers if not layer.startswith("params/aux")] + absent[:1]
    new = [name for name in wanted if name in misfits or name in absent]
    return new if len(outputs) == 1 and len(new) < len(wanted) else []


def _head(wanted: Mapping[str, Any], num_classes: int) -> list[str]:
    """The leaves of the output layer: of the outermost full layers with an output a class, the last by its name."""
    shapes = {name: tuple(leaf.shape) for name, leaf in wanted.items()}
    layers = [name.removesuffix("/bias") for name in wanted if re.fullmatch("params/[^/]+/bias", name)]
    full = [layer for layer in layers if len(shapes.get(f"{layer}/kernel", ())) == 2]
    heads = [layer for layer in full if shapes[f"{layer}/bias"] == (num_classes,)]
    last = max(heads, key=in_order, default="")
    return [name for name in wanted if last and name.startswith(f"{last}/")]
