"""Checkpoints: one safetensors file per saved step, written in a thread and verified when it is read.

A file holds one trial: `state` (the train state), `best` (the variables of the best validated step), and a header with the
step, the run's identity and everything else that the loop needs to resume.
"""

import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import jax
import numpy as np

from percept_jax import deletion, files, records
from percept_jax.errors import StorageError
from percept_jax.files import Lock
from percept_jax.trees import by_path

# The newest checkpoint, and the one before it in case the newest is damaged.
KEEP = 2
NAME = re.compile(r"step_([0-9]{9,18})\.safetensors")

T = TypeVar("T")


class LogChecksum(TypedDict):
    """The number of lines that metrics.jsonl had when a checkpoint was saved, and their checksum."""

    lines: int
    digest: str


class SavedProgress(TypedDict):
    """`trial.Progress` as a header stores it."""

    sums: dict[str, float]
    best: dict[str, Any] | None
    diverged_at: int | None
    stopped_at: int | None


class Header(TypedDict):
    """The header of a trial's checkpoint.

    Attributes:
        step: the number of steps that the trial has done.
        steps: the number of steps of the whole run.
        identity: the identity of the run.
        data_crc: the data set's checksum.
        experiment: `Experiment.science()`.
        preprocessing: `Preprocessing` as a dictionary.
        progress: the host-side progress of the trial.
        seconds: the seconds spent so far, by phase.
        log: the length and checksum of metrics.jsonl.
    """

    step: int
    steps: int
    identity: str
    data_crc: int
    experiment: dict[str, Any]
    preprocessing: dict[str, Any]
    progress: SavedProgress
    seconds: dict[str, float]
    log: LogChecksum


def check_header(header: Any, path: Path, identity: str) -> Header:
    """Returns a valid header of a trial's checkpoint.

    Raises StorageError if the header belongs to another run than `identity`, or is inconsistent.
    """
    records.checked(header, Header, path)
    if header["identity"] != identity:
        raise StorageError(f"{path}: belongs to another run")
    best = header["progress"]["best"]
    best_step = best.get("step") if best else 0
    if not 0 <= header["step"] <= header["steps"] or not isinstance(best_step, int) or not 0 <= best_step <= header["step"]:
        raise StorageError(f"{path}: inconsistent header: step {header['step']} of {header['steps']}, best step {best_step}")
    return header


def unflatten(arrays: dict[str, np.ndarray], template: Any) -> Any:
    """Returns the arrays as a pytree like `template`. Raises StorageError unless names, shapes and dtypes match it."""
    expected = {name: (leaf.shape, leaf.dtype) for name, leaf in by_path(template).items()}
    found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    for name in expected | found:
        if expected.get(name) != found.get(name):
            raise StorageError(f"{name}: expected {expected.get(name, 'nothing')}, found {found.get(name, 'nothing')}")
    return jax.tree.unflatten(jax.tree.structure(template), [arrays[name] for name in expected])


def steps(directory: Path) -> list[int]:
    """Returns the steps whose checkpoints are in `directory`, in ascending order."""
    return sorted(int(match[1]) for path in deletion.listed(directory) if (match := NAME.fullmatch(path.name)))


def path_of(directory: Path, step: int) -> Path:
    """Returns the path of the checkpoint of a step."""
    return directory / f"step_{step:09d}.safetensors"


def read(directory: Path, step: int) -> tuple[dict[str, np.ndarray], Any]:
    """Returns the arrays and the header of a step's checkpoint. Raises StorageError if it is damaged or of another step."""
    path = path_of(directory, step)
    arrays, header = files.read_arrays(path)
    if not isinstance(header, dict) or header.get("step") != step:
        raise StorageError(f"{path}: holds another step than its name says")
    return arrays, header


def newest(load: Callable[[int], T], *directories: Path) -> tuple[T, list[str]] | None:
    """Loads the newest usable checkpoint: tries `load(step)` from the newest step that all directories have to the oldest.

    Returns:
        What `load` returned, and a line for each newer step that was skipped, with the reason; None without any checkpoint.

    Raises:
        StorageError: there are checkpoints, and `load` has raised StorageError for each of them.
    """
    skipped: list[str] = []
    for step in sorted(set.intersection(*(set(steps(directory)) for directory in directories)), reverse=True):
        try:
            return load(step), skipped
        except StorageError as error:
            skipped.append(str(error))
    if skipped:
        more = f" (and {len(skipped) - 1} older ones are unusable too)" if len(skipped) > 1 else ""
        raise StorageError(skipped[0] + more)
    return None


class Saver:
    """Writes checkpoints in a thread, one save at a time; older files are deleted after those of all trials are written."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future | None = None

    def save(self, files: Sequence[tuple[Lock, Path, dict[str, np.ndarray], Any]]) -> None:
        """Starts to write the files, in this order; each is (lock on a folder above, path, arrays, header).

        Raises StorageError if the previous save failed.
        """
        self.wait()
        self._pending = self._thread.submit(_write, files)

    def wait(self) -> None:
        """Waits until the last save is on disk. Raises StorageError if it failed."""
        if self._pending:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """Waits for the last save, and ends the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()


def _write(rows: Sequence[tuple[Lock, Path, dict[str, np.ndarray], Any]]) -> None:
    for _, path, arrays, header in rows:
        files.write_arrays(path, arrays, header)
    for lock, path, _, header in rows:
        for old in [step for step in steps(path.parent) if step <= header["step"]][:-KEEP]:
            deletion.delete_file(lock, path_of(path.parent, old))
