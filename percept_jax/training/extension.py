"""--extend=RUN_DIR: goes on from a shorter run of the same experiment, with the bits that the longer one has anyway at that step.

That holds where nothing in a step depends on the length of the run: under a constant schedule. The shorter run stays as it is.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from percept_jax import files, records
from percept_jax.errors import StorageError, UsageError
from percept_jax.experiment import Experiment
from percept_jax.paths import user_path
from percept_jax.records import Provenance
from percept_jax.training import checkpoint
from percept_jax.training.checkpoint import Header
from percept_jax.training.identity import code, content_of, flag_text

_LENGTH = ("epochs", "steps")


class Beginning(NamedTuple):
    """What the longer run begins with: a checkpoint's arrays and header, and the lines of metrics.jsonl up to it."""

    arrays: dict[str, np.ndarray]
    header: Header
    log: bytes


def find(experiment: Experiment, steps: int, eval_every: int) -> Beginning:
    """The newest checkpoint of the run in `experiment.extend` that the longer run, of so many steps, has on its way too.

    A run validates and logs at its last step, where the longer one may not; then it is an earlier checkpoint.

    Raises:
        UsageError: there is no such run, or it is not the beginning of this one.
        StorageError: what is there is damaged.
    """
    path = user_path(experiment.extend, "extend")
    if not (path / "provenance.json").exists():
        raise UsageError(f"{path}: not a run directory", "extend")
    mark = records.read(path / "provenance.json", Provenance)
    result = records.read_result(path)
    if experiment.schedule != "constant":
        said = f"under --schedule={experiment.schedule} the rate depends on the length of the run"
        raise UsageError(f"{said}; --init_from={path} starts anew with its weights", "extend")
    if mark.get("code") != code(experiment):
        raise UsageError(f"{path} was made by other source code, so that the bits would be others", "extend")
    if result and result["status"] == "diverged":
        raise UsageError(f"{path} has diverged", "extend")

    def take(step: int) -> Beginning:
        file = checkpoint.path_of(path / "checkpoints", step)
        arrays, header = checkpoint.read(path / "checkpoints", step)
        checkpoint.check_header(header, file, mark.get("identity", ""))
        _check_same(header, experiment, steps, path)
        log = b"".join(line + b"\n" for line in files.read_bytes(path / "metrics.jsonl").split(b"\n")[: header["log"]["lines"]])
        if files.digest(log) != header["log"]["digest"]:
            raise StorageError(f"{path / 'metrics.jsonl'}: damaged: not what was logged up to step {step}")
        told = {"train": experiment.log_every, "validation": eval_every}
        logged = {split: [line["step"] for line in map(json.loads, log.splitlines()) if line["split"] == split] for split in told}
        if any(logged[split] != list(range(every, step + 1, every)) for split, every in told.items()):
            raise StorageError(f"{file}: the longer run would have logged at other steps (see --log_every)")
        return Beginning(arrays, header, log)

    try:
        found = checkpoint.newest(take, path / "checkpoints")
    except StorageError as error:
        raise UsageError(f"no checkpoint of it is on the way of the longer run: {error}", "extend") from error
    if found is None:
        raise UsageError(f"{path}: no checkpoint yet", "extend")
    return found[0]


def _check_same(header: Header, experiment: Experiment, steps: int, path: Path) -> None:
    """Raises UsageError unless the run with this header is the beginning of an experiment of so many steps."""
    theirs, ours = ({n: v for n, v in e.items() if n not in _LENGTH} for e in (header["experiment"], experiment.science()))
    differ = [name for name in {**theirs, **ours} if _spelled(theirs.get(name)) != _spelled(ours.get(name))]
    if differ:
        told = ", ".join(f"--{name}={flag_text(theirs.get(name, ''))}" for name in differ)
        raise UsageError(f"{path} is a run of another experiment: its {told}", "extend")
    if header["progress"]["stopped_at"] is not None:
        raise UsageError(f"{path} was ended by --stop_after, as the longer run would be", "extend")
    if steps <= header["steps"]:
        raise UsageError(f"{path} has {header['steps']} steps; give more", "extend")


def _spelled(value: Any) -> str:
    return content_of(flag_text(tuple(value) if isinstance(value, list) else value))
