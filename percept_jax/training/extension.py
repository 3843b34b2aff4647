"""--extend=RUN_DIR: continues a shorter run of the same experiment, with the same bits as an uninterrupted longer run.

This is possible only if no step depends on the length of the run, that is, under a constant schedule. The shorter run is
not changed.
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
    """The start of the longer run: a checkpoint's arrays and header, and the lines of metrics.jsonl up to it."""

    arrays: dict[str, np.ndarray]
    header: Header
    log: bytes


def find(experiment: Experiment, steps: int, eval_every: int) -> Beginning:
    """Returns the newest checkpoint of the run `experiment.extend` that a run of `steps` steps would pass through as well.

    The shorter run validates and logs at its last step. If the longer one does not, an earlier checkpoint is returned.

    Raises:
        UsageError: there is no such run, or it is not the beginning of this one.
        StorageError: a file of that run is damaged.
    """
    path = user_path(experiment.extend, "extend")
    if not (path / "provenance.json").exists():
        raise UsageError(f"{path}: not a run directory", "extend")
    mark = records.read(path / "provenance.json", Provenance)
    result = records.read_result(path)
    if experiment.schedule != "constant":
        reason = f"under --schedule={experiment.schedule} the learning rate depends on the length of the run"
        raise UsageError(f"{reason}; --init_from={path} starts a new run from its weights", "extend")
    if mark.get("code") != code(experiment):
        raise UsageError(f"{path} was made by other source code, so the result would differ", "extend")
    if result and result["status"] == "diverged":
        raise UsageError(f"{path} has diverged", "extend")

    def load(step: int) -> Beginning:
        file = checkpoint.path_of(path / "checkpoints", step)
        arrays, header = checkpoint.read(path / "checkpoints", step)
        checkpoint.check_header(header, file, mark.get("identity", ""))
        _check_same(header, experiment, steps, path)
        log = b"".join(line + b"\n" for line in files.read_bytes(path / "metrics.jsonl").split(b"\n")[: header["log"]["lines"]])
        if files.digest(log) != header["log"]["digest"]:
            raise StorageError(f"{path / 'metrics.jsonl'}: damaged: differs from what was logged up to step {step}")
        intervals = {"train": experiment.log_every, "validation": eval_every}
        lines = [json.loads(line) for line in log.splitlines()]
        logged = {split: [line["step"] for line in lines if line["split"] == split] for split in intervals}
        if any(logged[split] != list(range(every, step + 1, every)) for split, every in intervals.items()):
            raise StorageError(f"{file}: the longer run would have logged at other steps (see --log_every)")
        return Beginning(arrays, header, log)

    try:
        found = checkpoint.newest(load, path / "checkpoints")
    except StorageError as error:
        raise UsageError(f"{path} has no checkpoint that the longer run passes through: {error}", "extend") from error
    if found is None:
        raise UsageError(f"{path}: no checkpoint yet", "extend")
    return found[0]


def _check_same(header: Header, experiment: Experiment, steps: int, path: Path) -> None:
    """Raises UsageError unless the run with this header is the beginning of `experiment`, which has `steps` steps."""
    short, long = ({n: v for n, v in e.items() if n not in _LENGTH} for e in (header["experiment"], experiment.science()))
    differ = [name for name in {**short, **long} if _spelled(short.get(name)) != _spelled(long.get(name))]
    if differ:
        flags = ", ".join(f"--{name}={flag_text(short.get(name, ''))}" for name in differ)
        raise UsageError(f"{path} is a run of another experiment, with {flags}", "extend")
    if header["progress"]["stopped_at"] is not None:
        raise UsageError(f"{path} was ended by --stop_after, and the longer run would end there too", "extend")
    if steps <= header["steps"]:
        raise UsageError(f"{path} already has {header['steps']} steps; ask for more with --steps or --epochs", "extend")


def _spelled(value: Any) -> str:
    return content_of(flag_text(tuple(value) if isinstance(value, list) else value))
