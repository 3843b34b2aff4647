"""Checkpoints: one safetensors file a step, written in a thread, verified when it is read.

A file holds one trial: `state` (what the next step needs), `best` (the variables of the best validated step), and in its
header the step, the run's identity and what else the loop must know to go on.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from percept_jax import files
from percept_jax.errors import StorageError

KEEP = 2  # the last one, and the one before, should the last be damaged


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """A pytree's leaves by path, "params/Dense_0/kernel", as NumPy arrays."""
    return {name: np.asarray(leaf) for name, leaf in by_path(tree).items()}


def unflatten(arrays: dict[str, np.ndarray], template: Any) -> Any:
    """The pytree of `template`'s structure. Raises StorageError unless names, shapes and dtypes are the template's."""
    wanted = {name: (leaf.shape, leaf.dtype) for name, leaf in by_path(template).items()}
    found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    for name in wanted | found:
        if wanted.get(name) != found.get(name):
            raise StorageError(f"{name}: expected {wanted.get(name, 'nothing')}, found {found.get(name, 'nothing')}")
    return jax.tree.unflatten(jax.tree.structure(template), [arrays[name] for name in wanted])


def nested(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """The leaves below `prefix` as nested dictionaries: enough to apply a module without knowing its structure."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        if name.startswith(prefix):
            *parents, leaf = name.removeprefix(prefix).split("/")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = array
    return tree


def steps(directory: Path) -> list[int]:
    """The steps of which `directory` holds a checkpoint, rising."""
    return sorted(int(path.stem.removeprefix("step_")) for path in directory.glob("step_*.safetensors"))


def path_of(directory: Path, step: int) -> Path:
    """The file of a step."""
    return directory / f"step_{step:09d}.safetensors"


def newest(*directories: Path) -> list[tuple[dict[str, np.ndarray], Any]] | None:
    """Arrays and header, from each directory, of the newest step of which all have a checkpoint that is whole.

    None where there is no such step. Raises StorageError where there are some, and each is damaged somewhere.
    """
    fault = None
    for step in sorted(set.intersection(*(set(steps(directory)) for directory in directories)), reverse=True):
        try:
            return [files.read_arrays(path_of(directory, step)) for directory in directories]
        except StorageError as error:
            fault = fault or error
    if fault:
        raise fault
    return None


class Saver:
    """Writes checkpoints in a thread, one at a time, for all trials of a pack before any older one is deleted."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future | None = None

    def save(self, files: Sequence[tuple[Path, dict[str, np.ndarray], Any]]) -> None:
        """Starts to write (path, arrays, header) of each, in this order. Raises what the last save raised."""
        self.wait()
        self._pending = self._thread.submit(_write, files)

    def wait(self) -> None:
        """Returns when the last save is on the disk. Raises StorageError where it failed."""
        if self._pending:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """Waits, and ends the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()


def _write(rows: Sequence[tuple[Path, dict[str, np.ndarray], Any]]) -> None:
    for path, arrays, header in rows:
        files.write_arrays(path, arrays, header)
    for path, _, _ in rows:
        for old in steps(path.parent)[:-KEEP]:
            path_of(path.parent, old).unlink(missing_ok=True)


def by_path(tree: Any) -> dict[str, Any]:
    """A pytree's leaves by path, whatever they are."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
