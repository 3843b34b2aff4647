"""Weights by themselves: a Flax module's variables in a safetensors file, and such a file, ours or PyTorch's, in a module.

Python's pickles are never opened: they run what a file says.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from percept_jax import files
from percept_jax.errors import UsageError, first_line
from percept_jax.torch_names import renamed
from percept_jax.training.checkpoint import by_path, flatten

SHOWN = 8  # leaves that a message names before it counts the rest


def save(path: Path, variables: Mapping[str, Any]) -> None:
    """Writes variables under names like "params/conv1/kernel", in the dtypes that they have. Raises StorageError."""
    from safetensors.numpy import save

    files.write_bytes(path, save({name: np.asarray(array, order="C") for name, array in flatten(variables).items()}))


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of any safetensors file, by the names that it gives them; 16 bits are widened to float32.

    Raises UsageError where the file is missing, or is something else.
    """
    from safetensors import SafetensorError, safe_open

    if path.suffix in (".pt", ".pth", ".bin", ".ckpt"):
        hint = "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        raise UsageError(f"{path}: PyTorch's pickles are not opened, as they can run code; convert it with {hint}", "init_from")
    try:
        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file", "init_from") from None
    except (OSError, SafetensorError, KeyError, AttributeError) as error:  # of a dtype that NumPy has not
        raise UsageError(f"{path}: not a safetensors file: {first_line(error)}", "init_from") from error
    narrow = ("bfloat16", "float16")
    return {name: array.astype(np.float32) if array.dtype.name in narrow else array for name, array in arrays.items()}


def fit(found: Mapping[str, np.ndarray], template: Any, source: str, num_classes: int = 0) -> tuple[Any, list[str]]:
    """Variables of the template's structure and dtypes, filled with arrays that `read` has returned.

    Each leaf is found, in its shape, and each array is used, or nothing is. The exception is a new head: where the output
    layer, and those of auxiliary heads, differ in the number of classes only, they keep the template's initial values.

    Args:
        found: arrays by our names, "params/conv1/kernel", or PyTorch's, "conv1.weight".
        template: variables as the module initialises them, or their shapes.
        source: the file, for messages.
        num_classes: outputs of the template's head, which may be new; 0: it may not.

    Returns:
        The variables, and the paths of the new head's leaves.

    Raises:
        UsageError: naming what is missing, unexpected, of another shape, or not finite.
    """
    wanted = by_path(template)
    if not any(name.startswith("params/") for name in found):
        found = renamed(found, wanted)
    if not any(name.startswith("params/aux") for name in wanted):  # GoogLeNet built without its heads
        found = {name: array for name, array in found.items() if not re.match(r"\w+/aux\d/", name)}
    shared = [name for name in wanted if name in found]
    misfits = [name for name in shared if found[name].shape != wanted[name].shape]
    new = _new_head(misfits, found, wanted, num_classes)
    with np.errstate(over="ignore"):  # what float32 cannot hold is told of below
        values = {name: np.asarray(found[name], wanted[name].dtype, order="C") for name in shared if name not in misfits}
    faults = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [name for name in found if name not in wanted],
        "shape": [f"{name} is {list(found[name].shape)}, not {list(wanted[name].shape)}" for name in misfits if name not in new],
        "not finite floats": [n for n, value in values.items() if found[n].dtype.kind != "f" or not np.isfinite(value).all()],
    }
    if told := "; ".join(f"{fault}: {_some(names)}" for fault, names in faults.items() if names):
        raise UsageError(f"{source}: {told}", "init_from")
    leaves = [leaf if name in new else values[name] for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(template), leaves), new


def _some(names: list[str]) -> str:
    """Names between commas, the first few of many."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _new_head(misfits: list[str], found: Mapping[str, np.ndarray], wanted: Mapping[str, Any], num_classes: int) -> list[str]:
    """The misfits, where they are all of the output layers and differ in the number of classes only; else none."""
    layers = {name.rpartition("/")[0] for name in misfits}
    for name, leaf in wanted.items():
        layer, _, kind = name.rpartition("/")
        if layer in layers:
            for_classes = name in misfits and leaf.shape == (*found[name].shape[:-1], num_classes)
            if kind not in ("kernel", "bias") or not for_classes:
                return []
    outputs = [layer for layer in layers if not layer.startswith("params/aux")]
    return misfits if len(outputs) == 1 and len(misfits) < len(wanted) else []
