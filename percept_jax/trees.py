"""Converts pytrees to and from dictionaries of leaves with names such as "params/Dense_0/kernel"."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util


def by_path(tree: Any) -> dict[str, Any]:
    """Returns a pytree's leaves, of any type, by path and in JAX's order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Returns a pytree's leaves by path, as NumPy arrays."""
    return {name: np.asarray(leaf) for name, leaf in by_path(tree).items()}


def nested(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """Returns the leaves below `prefix` as nested dictionaries, as a module takes them; no template is needed."""
    below = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    return traverse_util.unflatten_dict(below, sep="/")
