"""Checkpoints: one safetensors file a step, written in a thread, verified when it is read.

A file holds one trial: `state` (what the next step needs), `best` (the variables of the best validated step), and in its
header the step, the run's identity and what else the loop must know to go on.
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

# The last one, and the one before, should the last be damaged.
KEEP = 2
NAME = re.compile(r"step_([0-9]{9,18})\.safetensors")

T = TypeVar("T")


class Promise(TypedDict):
    """What a checkpoint says of metrics.jsonl: its lines up to then, and their checksum."""

    lines: int
    digest: str


class SavedProgress(TypedDict):
    """`trial.Progress` in a header."""

    sums: dict[str, float]
    best: dict[str, Any] | None
    diverged_at: int | None
    stopped_at: int | None


class Header(TypedDict):
    """The header of a trial's checkpoint.

    Attributes:
        step: how many the trial has done.
        steps: of the whole run.
        identity: of the run.
        data_crc: the data set's checksum.
        experiment: `Experiment.science()`.
        preprocessing: `Preprocessing` as a dictionary.
        progress: beside the state.
        seconds: by phase, so far.
        log: what it says of metrics.jsonl.
    """

    step: int
    steps: int
    identity: str
    data_crc: int
    experiment: dict[str, Any]
    preprocessing: dict[str, Any]
    progress: SavedProgress
    seconds: dict[str, float]
    log: Promise


def check_header(header: Any, path: Path, identity: str) -> Header:
    """The header of a trial's checkpoint. Raises StorageError where it is not one of the run `identity`, or makes no sense."""
    records.checked(header, Header, path)
    if header["identity"] != identity:
        raise StorageError(f"{path}: a checkpoint of another run")
    best = header["progress"]["best"]
    reached = best.get("step") if best else 0
    if not 0 <= header["step"] <= header["steps"] or not isinstance(reached, int) or not 0 <= reached <= header["step"]:
        raise StorageError(f"{path}: step {header['step']} of {header['steps']}, its best {reached}")
    return header


def unflatten(arrays: dict[str, np.ndarray], template: Any) -> Any:
    """The pytree of `template`'s structure. Raises StorageError unless names, shapes and dtypes are the template's."""
    wanted = {name: (leaf.shape, leaf.dtype) for name, leaf in by_path(template).items()}
    found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    for name in wanted | found:
        if wanted.get(name) != found.get(name):
            raise StorageError(f"{name}: expected {wanted.get(name, 'nothing')}, found {found.get(name, 'nothing')}")
    return jax.tree.unflatten(jax.tree.structure(template), [arrays[name] for name in wanted])


def steps(directory: Path) -> list[int]:
    """The steps of which `directory` holds a checkpoint, rising."""
    return sorted(int(match[1]) for path in deletion.listed(directory) if (match := NAME.fullmatch(path.name)))


def path_of(directory: Path, step: int) -> Path:
    """The file of a step."""
    return directory / f"step_{step:09d}.safetensors"


def read(directory: Path, step: int) -> tuple[dict[str, np.ndarray], Any]:
    """Arrays and header of a step. Raises StorageError where they are damaged, or are those of another step."""
    path = path_of(directory, step)
    arrays, header = files.read_arrays(path)
    if not isinstance(header, dict) or header.get("step") != step:
        raise StorageError(f"{path}: a checkpoint of another step")
    return arrays, header


def newest(take: Callable[[int], T], *directories: Path) -> tuple[T, list[str]] | None:
    """What `take(step)` makes of the newest step that it accepts, of which all directories have a checkpoint.

    Returns:
        That, and why newer ones were passed over, a line each; None where there is no checkpoint.

    Raises:
        StorageError: there are some, and `take` has raised it for each of them.
    """
    passed_over: list[str] = []
    for step in sorted(set.intersection(*(set(steps(directory)) for directory in directories)), reverse=True):
        try:
            return take(step), passed_over
        except StorageError as error:
            passed_over.append(str(error))
    if passed_over:
        more = f" (and {len(passed_over) - 1} older ones will not do either)" if len(passed_over) > 1 else ""
        raise StorageError(passed_over[0] + more)
    return None


class Saver:
    """Writes checkpoints in a thread, one at a time, for all trials of a pack before any older one is deleted."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future | None = None

    def save(self, files: Sequence[tuple[Lock, Path, dict[str, np.ndarray], Any]]) -> None:
        """Starts to write (lock on a folder above, path, arrays, header) of each, in this order.

        Raises what the last save raised.
        """
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


def _write(rows: Sequence[tuple[Lock, Path, dict[str, np.ndarray], Any]]) -> None:
    for _, path, arrays, header in rows:
        files.write_arrays(path, arrays, header)
    for lock, path, _, header in rows:
        for old in [step for step in steps(path.parent) if step <= header["step"]][:-KEEP]:
            deletion.delete_file(lock, path_of(path.parent, old))
