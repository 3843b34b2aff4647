"""What a run has left, or has left so far: read back from its directory, and checked against itself."""

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
    """A run as its directory has it.

    Attributes:
        arrays: of its newest checkpoint that will do; those of the best step's variables are below "best/".
        header: of that checkpoint.
        result: what result.json holds; None while the run is not finished.
    """

    arrays: dict[str, np.ndarray]
    header: Header
    result: Result | None


def read(path: Path, note: Callable[[str], None]) -> Stored:
    """Reads a run directory. Of a finished run the weights are those that its result tells of, or there are none.

    Args:
        path: the directory.
        note: is told of checkpoints that were passed over.

    Raises:
        UsageError: this is no run directory, or the run has no checkpoint yet.
        StorageError: what is there is damaged, or is not this run's.
    """
    if not os.path.lexists(path / "provenance.json"):
        raise UsageError(f"{path}: not a run directory")
    identity = records.read_mark(path / "provenance.json", Provenance, RUN)["identity"]
    result = records.read_result(path)

    def take(step: int) -> tuple[dict[str, np.ndarray], Header]:
        file = checkpoint.path_of(path / "checkpoints", step)
        arrays, header = checkpoint.read(path / "checkpoints", step)
        checkpoint.check_header(header, file, identity)
        best = (header["progress"]["best"] or {}).get("step")
        if result is not None and best != result.get("best_step"):
            raise StorageError(
                f"{file}: has the weights of step {best}, but the result is that of step {result.get('best_step')}"
            )
        if not any(name.startswith("best/") for name in arrays):
            raise StorageError(f"{file}: has no weights")
        return arrays, header

    found = checkpoint.newest(take, path / "checkpoints")
    if found is None and result is not None:
        raise StorageError(f"{path / 'checkpoints'}: the run is finished, but its weights are gone")
    if found is None:
        raise UsageError(f"{path}: no checkpoint yet")
    (arrays, header), passed_over = found
    for line in passed_over:
        note(f"passed over: {line}")
    return Stored(arrays, header, result)


def best(stored: Stored) -> dict[str, Any]:
    """The variables of the best validated step, as Flax's modules take them."""
    return nested(stored.arrays, "best/")


def finished_before(experiment: Experiment, name: str) -> Path | None:
    """The directory of a finished run of these flags and this code, whose data or weights may be gone; None without one."""

    def meant(lines: Sequence[str]) -> list[str]:
        return sorted(re.sub(r"#([0-9a-f]{16}|[0-9a-f]{8})$", "", line) for line in lines)

    here = run_path(experiment, name)
    for path in [here] if experiment.run_dir else sorted(here.parent.glob("*")):
        with contextlib.suppress(StorageError):
            mark = records.read_mark(path / "provenance.json", Provenance, RUN)
            if mark and mark["code"] == code(experiment) and not experiment.fresh and records.read_result(path):
                flags = files.read_bytes(path / "run.flags").decode(errors="replace").splitlines()
                if meant(flags) == meant(flag_lines(experiment)):
                    return path
    return None


def check_finished(path: Path, note: Callable[[str], None]) -> Path:
    """Returns the directory of a finished run; `note` is told what is wrong with it. Raises DataError where it diverged."""
    result: Any = records.read_result(path)
    try:
        records.read_whole(path)
    except StorageError as error:
        note(str(error))
    if result["status"] == "diverged":
        raise DataError(f"{path}: the loss was not finite at step {result['steps']}; try a lower --learning_rate")
    return path
