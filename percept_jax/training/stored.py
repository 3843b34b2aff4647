"""Reads a finished or unfinished run back from its directory, and checks its files against each other."""

import contextlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from percept_jax import files, records
from percept_jax.errors import DataError, StorageError, UsageError
from percept_jax.experiment import Experiment
from percept_jax.records import RUN, Provenance, Result
from percept_jax.training import checkpoint
from percept_jax.training.checkpoint import Header
from percept_jax.training.identity import code, flag_lines
from percept_jax.training.run_dir import run_path
from percept_jax.trees import nested


class Stored(NamedTuple):
    """A run, read back from its directory.

    Attributes:
        arrays: the arrays of its newest usable checkpoint; the variables of the best step are below "best/".
        header: the header of that checkpoint.
        result: the content of result.json; None if the run is not finished.
    """

    arrays: dict[str, np.ndarray]
    header: Header
    result: Result | None


def read(path: Path, note: Callable[[str], None]) -> Stored:
    """Reads a run directory. For a finished run only a checkpoint with the weights of its result is accepted.

    Args:
        path: the directory.
        note: is called with a message for each checkpoint that is skipped.

    Raises:
        UsageError: this is not a run directory, or the run has no checkpoint yet.
        StorageError: a file is damaged, or belongs to another run.
    """
    if not os.path.lexists(path / "provenance.json"):
        raise UsageError(f"{path}: not a run directory")
    identity = records.read_mark(path / "provenance.json", Provenance, RUN)["identity"]
    result = records.read_result(path)

    def load(step: int) -> tuple[dict[str, np.ndarray], Header]:
        file = checkpoint.path_of(path / "checkpoints", step)
        arrays, header = checkpoint.read(path / "checkpoints", step)
        checkpoint.check_header(header, file, identity)
        best = (header["progress"]["best"] or {}).get("step")
        if result is not None and best != result.get("best_step"):
            raise StorageError(f"{file}: holds the weights of step {best}, but the result is of step {result.get('best_step')}")
        if not any(name.startswith("best/") for name in arrays):
            raise StorageError(f"{file}: holds no weights")
        return arrays, header

    found = checkpoint.newest(load, path / "checkpoints")
    if found is None and result is not None:
        raise StorageError(f"{path / 'checkpoints'}: the run is finished, but its checkpoints are missing")
    if found is None:
        raise UsageError(f"{path}: no checkpoint yet")
    (arrays, header), skipped = found
    for line in skipped:
        note(f"skipped: {line}")
    return Stored(arrays, header, result)


def best(stored: Stored) -> dict[str, Any]:
    """Returns the variables of the best validated step, as Flax's modules take them."""
    return nested(stored.arrays, "best/")


def finished_before(experiment: Experiment, name: str) -> Path | None:
    """Returns the directory of a finished run of these flags and this code, or None; its data or weights may be gone."""

    def without_checksums(lines: Sequence[str]) -> list[str]:
        return sorted(re.sub(r"#([0-9a-f]{16}|[0-9a-f]{8})$", "", line) for line in lines)

    here = run_path(experiment, name)
    for path in [here] if experiment.run_dir else sorted(here.parent.glob("*")):
        with contextlib.suppress(StorageError):
            mark = records.read_mark(path / "provenance.json", Provenance, RUN)
            if mark and mark["code"] == code(experiment) and not experiment.fresh and records.read_result(path):
                flags = files.read_bytes(path / "run.flags").decode(errors="replace").splitlines()
                if without_checksums(flags) == without_checksums(flag_lines(experiment)):
                    return path
    return None


def check_finished(path: Path, note: Callable[[str], None]) -> Path:
    """Returns the directory of a finished run; calls `note` if its files are damaged. Raises DataError if it diverged."""
    result: Any = records.read_result(path)
    try:
        records.read_whole(path)
    except StorageError as error:
        note(str(error))
    if result["status"] == "diverged":
        raise DataError(f"{path}: the loss was not finite at step {result['steps']}; try a lower --learning_rate")
    return path
