"""The files that a run leaves, and the lock on them."""

import contextlib
import csv
import fcntl
import functools
import hashlib
import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from percept_jax import files
from percept_jax.errors import Busy, StorageError, UsageError
from percept_jax.experiment import Experiment
from percept_jax.files import read_json
from percept_jax.training.events import EventFile

_PACKAGE = Path(__file__).parent.parent
ROOT = _PACKAGE.parent if (_PACKAGE.parent / "launch.sh").exists() else Path.cwd()

_OURS = ("result.json", "run.flags", "metrics.jsonl", "confusion.csv", "training.png", "confusion.png")
_VERSIONS = ("jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets", "array-record", "safetensors", "pillow")


def identity(experiment: Experiment) -> str:
    """12 hexadecimal digits that name a run: its science values where they are not the defaults, and the package's source.

    A result computed by other code is thus not taken for this code's result.
    """
    digest = _source(_PACKAGE).copy()
    digest.update(json.dumps(experiment.chosen(), sort_keys=True).encode())
    return digest.hexdigest()[:12]


@functools.cache
def _source(package: Path) -> Any:
    """The digest of all source code, as this process found it."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("[!.]*.py")):
        digest.update(b"\0" + str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest


def run_path(experiment: Experiment, name: str) -> Path:
    """Where the run goes: --run_dir, else runs/<name>/<id> in the repository. Raises UsageError for a name with a path in it."""
    if name != Path(name).name or name in ("", ".", ".."):
        raise UsageError(f"{name!r} is not a name for a folder under runs/")
    return Path(experiment.run_dir).expanduser() if experiment.run_dir else ROOT / "runs" / name / identity(experiment)


def data_path(data_dir: str) -> Path:
    """Where data sets are: --data_dir, else $TFDS_DATA_DIR, else data/ in the repository."""
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or ROOT / "data").expanduser()


def flag_lines(experiment: Experiment) -> list[str]:
    """Every effective science flag as a line of a flag file."""
    values = experiment.science()
    unset = "epochs" if experiment.steps else "steps"  # a later one of the two takes the place of the other
    return [f"--{name}={flag_text(value)}" for name, value in values.items() if name != unset]


def flag_text(value: Any) -> str:
    """A value as a flag file spells it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


class RunDir:
    """A run directory that this process holds: one at a time, and only for the run that it was made for."""

    def __init__(self, path: Path, experiment: Experiment):
        """Takes the directory, or makes it. Raises UsageError where it is another run's, StorageError where it is in use."""
        self.path, self.experiment, self.identity = path, experiment, identity(experiment)
        self.checkpoints = path / "checkpoints"
        refuse_strangers(path, experiment)
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = open(path / ".lock", "w")  # noqa: SIM115 (held until close)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"{path}: another process is training here") from error
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror or error}") from error
        for left in [*path.glob(".*.[0-9]*"), *self.checkpoints.glob(".*.[0-9]*")]:
            left.unlink(missing_ok=True)  # half a file, from a process that was killed
        if experiment.fresh:
            self._clear()
        self._metrics = self._events = None

    @property
    def restarts(self) -> list[dict[str, Any]]:
        """The starts after the first, with the step that each began from and the steps that it did again."""
        return read_json(self.path / "provenance.json")["restarts"]

    def begin(self, step: int, devices: Sequence[str], pack: int = 1) -> None:
        """Writes down how this process was started, and cuts the metrics back to the step that it goes on from.

        `pack` is the number of trials that are stepped together.
        """
        path = self.path / "provenance.json"
        lines = files.read_json_lines(self.path / "metrics.jsonl")
        reached = max((line["step"] for line in lines), default=0)
        kept = [line for line in lines if line["step"] <= step and line["split"] != "test"]
        if path.exists():
            record = read_json(path)
            redone = {"from_step": step, "redone_steps": max(0, reached - step)}
            record["restarts"].append({**_provenance(tuple(devices)), "pack": pack, **redone})
            record["pack"] = pack if step == 0 else record["pack"]  # what was done in another pack counts no more
        else:
            record = {"identity": self.identity, **_provenance(tuple(devices)), "pack": pack, "restarts": []}
        files.write_json(path, record)  # first: it marks the directory as this run's
        files.write_bytes(self.path / "run.flags", ("\n".join(flag_lines(self.experiment)) + "\n").encode())
        files.write_bytes(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._metrics = open(self.path / "metrics.jsonl", "a", buffering=1)  # noqa: SIM115 (held until close)
        self._events = EventFile(self.path, step)

    def log(self, record: Mapping[str, Any]) -> None:
        """Adds a line to metrics.jsonl, and its numbers to the event file. Raises StorageError."""
        try:
            self._metrics.write(json.dumps(record, allow_nan=False) + "\n")
            self._events.write(record)
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror or error}") from error

    def write_confusion(self, confusion: np.ndarray, classes: Sequence[str]) -> None:
        """Writes confusion.csv: a row a true class, a column a predicted one, with their names."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["true \\ predicted", *classes])
        table.writerows([name, *row] for name, row in zip(classes, confusion.tolist(), strict=True))
        files.write_bytes(self.path / "confusion.csv", text.getvalue().encode())

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Writes result.json, the last file of a run."""
        files.write_json(self.path / "result.json", result)

    def close(self) -> None:
        """Closes the files and lets go of the directory."""
        for held in (self._metrics, self._events, self._lock):
            if held:
                with contextlib.suppress(OSError):  # a full disk has been told of where it was met
                    held.close()

    def _clear(self) -> None:
        ours = [self.path / name for name in _OURS]
        ours += [*self.checkpoints.glob("step_*.safetensors"), *self.path.glob("events.out.tfevents.*")]
        for path in [*ours, self.path / "provenance.json"]:  # the mark of a run last, should this be cut short
            path.unlink(missing_ok=True)


def refuse_strangers(path: Path, experiment: Experiment) -> None:
    """Raises UsageError where `path` holds something else than this experiment's run. Touches nothing."""
    if not path.exists():
        return
    if not path.is_dir():
        raise UsageError(f"{path} is not a directory", "run_dir")
    if not (path / "provenance.json").exists():
        if any(not p.name.startswith(".") for p in path.iterdir()):
            raise UsageError(f"{path} holds something that is not a run", "run_dir")
        return
    if not experiment.fresh and read_json(path / "provenance.json")["identity"] != identity(experiment):
        now, flags = flag_lines(experiment), path / "run.flags"
        then = flags.read_text().splitlines() if flags.exists() else now
        told = f"its {' '.join(x for x in then if x not in now)}, yours {' '.join(x for x in now if x not in then)}"
        why = "made by other source code" if now == then else told
        raise UsageError(f"{path} holds another run ({why}); choose another directory, or --fresh to replace it", "run_dir")


@functools.cache
def _provenance(devices: tuple[str, ...]) -> dict[str, Any]:
    versions = {"python": sys.version.split()[0]}
    for package in _VERSIONS:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "command": shlex.join(sys.orig_argv),
        "git_sha": _git("rev-parse", "HEAD").strip() or None,
        "git_diff": _git("diff", "--no-ext-diff", "HEAD"),
        "untracked": _git("ls-files", "--others", "--exclude-standard").splitlines(),
        "versions": versions,
        "devices": list(devices),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _git(*args: str) -> str:
    try:
        return subprocess.run(["git", "-C", ROOT, *args], capture_output=True, check=True).stdout.decode(errors="replace")
    except (OSError, subprocess.CalledProcessError):
        return ""
