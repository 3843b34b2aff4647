"""The run directory: the files that a run writes, and the lock on them."""

import contextlib
import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from percept_jax import deletion, files, metrics, records
from percept_jax.errors import Busy, StorageError, UsageError
from percept_jax.experiment import Experiment
from percept_jax.paths import output_path, user_path
from percept_jax.records import RUN, Provenance
from percept_jax.tasks.base import Task
from percept_jax.training import checkpoint
from percept_jax.training.checkpoint import LogChecksum
from percept_jax.training.identity import code, flag_lines, identity
from percept_jax.training.provenance import ROOT, provenance
from percept_jax.training.tensorboard import EventFile

# This file marks a run directory, and says which run it belongs to.
MARK = "provenance.json"
# The files of a run except MARK, the lock and the checkpoints.
_RUN_FILES = re.compile(
    r"result\.json|run\.flags|metrics\.jsonl|confusion\.csv|(training|confusion|boundary)\.png|events\.out\.tfevents\.\d+\..+\.percept"
)
_RUN_FILES_AND_MARK = re.compile(rf"{_RUN_FILES.pattern}|{re.escape(MARK)}")


def run_path(experiment: Experiment, name: str) -> Path:
    """Returns --run_dir, else runs/<name>/<id> in the repository. Raises UsageError if no run can be written there."""
    folder = runs_folder(name)
    return output_path(experiment.run_dir, "run_dir") if experiment.run_dir else folder / identity(experiment)


def runs_folder(name: str, root: Path | None = None) -> Path:
    """Returns runs/<name> in the repository, or in `root`. Raises UsageError if the name is not a plain folder name."""
    if name != Path(name).name or name in ("", ".", ".."):
        raise UsageError(f"{name!r} cannot be the name of a folder under runs/")
    return user_path((root or ROOT) / "runs" / name)


def data_path(data_dir: str) -> Path:
    """Returns the folder of the data sets: --data_dir, else $TFDS_DATA_DIR, else data/ in the repository.

    Raises UsageError if it is not a valid path.
    """
    if data_dir:
        return user_path(data_dir, "data_dir")
    return user_path(os.environ.get("TFDS_DATA_DIR") or ROOT / "data", where="TFDS_DATA_DIR")


class RunDir:
    """A run directory that this process has locked. It belongs to one run, and one process at a time may hold it.

    This class knows the name of every file in the directory. Files with other names, and links, are never touched.

    Attributes:
        path: the directory.
        experiment: the experiment of the run.
        checkpoints: the folder of its checkpoints.
        identity: the identity of the run.
        lock: the lock on the directory.
    """

    def __init__(self, path: Path, experiment: Experiment):
        """Locks the directory, which is made if needed. Raises UsageError if it is another run's, StorageError if in use."""
        # Files in the directory are never reached through a link.
        path = path.resolve() if path.is_symlink() else path
        self.path, self.experiment, self.identity = path, experiment, identity(experiment)
        self.checkpoints = path / "checkpoints"
        self._metrics: TextIO | None = None
        self._events: EventFile | None = None
        # The lines of metrics.jsonl so far, and the state of their checksum.
        self._lines, self._log_hash = 0, hashlib.blake2b(digest_size=16)
        self._record: dict[str, Any] = {}
        refuse_strangers(path, experiment)
        self.lock = files.Lock(path / ".lock", path)
        if not self.lock.held:
            raise Busy(f"{path}: another process is training here")
        try:
            # Check again, now that no other process can change it.
            refuse_strangers(path, experiment)
            mark = records.read_mark(path / MARK, Provenance, RUN)
            clearing = mark is not None and (experiment.fresh or mark["clearing"])
            if mark is None or clearing:
                mark = self._first_record([], 1) | {"clearing": clearing}
                # Written first, so that the directory is known to be this run's if the process is killed from here on.
                records.write(path / MARK, mark)
            if clearing:
                self._clear()
                mark |= {"clearing": False}
                records.write(path / MARK, mark)
            self._record = mark
            for folder, name in ((path, _RUN_FILES_AND_MARK), (self.checkpoints, checkpoint.NAME)):
                deletion.delete_temporaries(self.lock, folder, name)
        except BaseException:
            self.close()
            raise

    @property
    def restarts(self) -> list[dict[str, Any]]:
        """The starts after the first one, with the step that each resumed from and the number of steps that it repeated."""
        return self._record["restarts"]

    def check_log(self, expected: LogChecksum) -> None:
        """Raises StorageError unless metrics.jsonl begins with the lines that a checkpoint was saved with."""
        if files.digest(self._logged(expected["lines"])) != expected["digest"]:
            problem = f"its first {expected['lines']} lines are not those that the checkpoint was saved with"
            raise StorageError(f"{self.path / 'metrics.jsonl'}: damaged: {problem}")

    def _logged(self, lines: int) -> bytes:
        """Returns the first `lines` lines of metrics.jsonl."""
        path = self.path / "metrics.jsonl"
        content = files.read_bytes(path) if path.exists() else b""
        return b"".join(line + b"\n" for line in content.split(b"\n")[:-1][:lines])

    def begin(
        self,
        step: int,
        devices: Sequence[str],
        task: Task,
        pack: int = 1,
        checksum: LogChecksum | None = None,
        extends: tuple[Path, bytes] | None = None,
    ) -> None:
        """Writes down how this process was started, and cuts the metrics back to the step that it goes on from.

        Args:
            step: the first one is the next.
            devices: their names.
            task: what the run is measured by.
            pack: trials that are stepped together.
            checksum: what the checkpoint says of the log; None: there is none.
            extends: the run directory that the checkpoint is from, and its log up to then, where it is another one.
        """
        kept = extends[1] if extends else self._logged(checksum["lines"] if checksum else 0)
        record = self._record
        if record["devices"]:
            redone = {"from_step": step, "redone_steps": max(0, self._reached() - step)}
            record["restarts"].append({**provenance(), "devices": list(devices), "pack": pack, **redone})
            # Steps from an earlier pack still count, unless the run starts over.
            record["pack"] = pack if step == 0 else record["pack"]
        else:
            self._record = record = self._first_record(devices, pack)
        if extends:
            record["extends"] = {"run_dir": str(extends[0]), "step": step}
        record |= {"task": task.name, "metrics": metrics.recorded(task.metrics)}
        record.pop("files", None)
        records.write(self.path / MARK, record)
        files.write_bytes(self.path / "run.flags", _flag_file(self.experiment))
        files.write_bytes(self.path / "metrics.jsonl", kept)
        self._log_hash, self._lines = hashlib.blake2b(kept, digest_size=16), kept.count(b"\n")
        self._metrics = files.open_to_append(self.path / "metrics.jsonl")
        self._events = EventFile(self.path, step, {metric.name for metric in task.metrics})

    def _first_record(self, devices: Sequence[str], pack: int) -> dict[str, Any]:
        """Returns provenance.json for a first start; `devices` is empty until the first step."""
        made = {"format": RUN, "identity": self.identity, "code": code(self.experiment), "clearing": False}
        return {**made, **provenance(), "devices": list(devices), "pack": pack, "restarts": []}

    def _reached(self) -> int:
        """Returns the last step in metrics.jsonl, as far as it can be read."""
        reached, path = 0, self.path / "metrics.jsonl"
        for line in files.read_bytes(path).split(b"\n") if path.exists() else ():
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                reached = max(reached, json.loads(line)["step"])
        return reached

    def log(self, record: Mapping[str, Any]) -> None:
        """Writes a line to metrics.jsonl, and its numbers to the event file. Raises StorageError."""
        line = json.dumps(record, allow_nan=False) + "\n"
        assert self._metrics is not None
        assert self._events is not None
        try:
            self._metrics.write(line)
            self._events.write(record)
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror or error}") from error
        self._log_hash.update(line.encode())
        self._lines += 1

    def log_checksum(self) -> LogChecksum:
        """Flushes metrics.jsonl to disk, and returns the number of its lines and their checksum, for a checkpoint."""
        assert self._metrics is not None
        try:
            self._metrics.flush()
            os.fsync(self._metrics.fileno())
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror or error}") from error
        return {"lines": self._lines, "digest": self._log_hash.hexdigest()}

    def write_confusion(self, confusion: np.ndarray, classes: Sequence[str]) -> None:
        """Writes confusion.csv: one row per true class and one column per predicted class, with their names."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["true \\ predicted", *classes])
        table.writerows([name, *row] for name, row in zip(classes, confusion.tolist(), strict=True))
        files.write_bytes(self.path / "confusion.csv", text.getvalue().encode())

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Writes result.json, the last file of a run, after recording the checksums of the files that are read back."""
        content = files.json_bytes(result)
        present = [name for name in ("run.flags", "metrics.jsonl", "confusion.csv") if (self.path / name).exists()]
        sums = {name: files.digest(files.read_bytes(self.path / name)) for name in present}
        self._record |= {"files": sums | {"result.json": files.digest(content)}}
        records.write(self.path / MARK, self._record)
        files.write_bytes(self.path / "result.json", content)

    def close(self) -> None:
        """Closes the files and releases the lock on the directory."""
        for file in (self._metrics, self._events):
            if file:
                # A full disk has already been reported by the write that failed.
                with contextlib.suppress(OSError):
                    file.close()
        self.lock.release()

    def _clear(self) -> None:
        deletion.delete_matching(self.lock, self.checkpoints, checkpoint.NAME)
        deletion.delete_matching(self.lock, self.path, _RUN_FILES)


def delete_run(path: Path, run: str) -> None:
    """Deletes the directory `path` of the run with the identity `run`, except for files that a run does not write.

    Raises Busy if another process holds it, StorageError if it is not that run's.
    """
    mark = records.read_mark(path / MARK, Provenance, RUN)
    if mark is None or mark["identity"] != run:
        raise StorageError(f"{path}: not deleted, because it is not the directory of the run {run}")
    with files.locked(path / ".lock") as lock:
        if not lock.held:
            raise Busy(f"{path}: another process is training here")
        for folder, name in ((path / "checkpoints", checkpoint.NAME), (path, _RUN_FILES)):
            deletion.delete_temporaries(lock, folder, checkpoint.NAME if name is checkpoint.NAME else _RUN_FILES_AND_MARK)
            deletion.delete_matching(lock, folder, name)
        deletion.delete_empty_folder(lock, path / "checkpoints")
        if {child.name for child in path.iterdir()} <= {MARK, ".lock"}:
            deletion.delete_file(lock, path / MARK)
            deletion.delete_file(lock, path / ".lock")
            deletion.delete_empty_folder(lock, path)


def refuse_strangers(path: Path, experiment: Experiment) -> None:
    """Raises UsageError if `path` holds anything but this experiment's run. Changes nothing."""
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        raise UsageError(f"{path} is not a directory", "run_dir")
    if (mark := _mark(path, experiment.fresh)) is None:
        if any(not p.name.startswith(".") for p in path.iterdir()):
            raise UsageError(f"{path} holds something that is not a run", "run_dir")
        return
    for file in path.iterdir():
        odd = file.is_symlink() or not file.is_file()
        if odd and (_RUN_FILES.fullmatch(file.name) or file.name in (MARK, ".lock")):
            raise UsageError(f"{file} is a link or no file; a run writes there, and never through a link", "run_dir")
    if (path / "checkpoints").is_symlink():
        raise UsageError(f"{path / 'checkpoints'} is a link; a run deletes old checkpoints, never through a link", "run_dir")
    if not experiment.fresh and mark["identity"] != identity(experiment):
        difference, advice = _difference(path, mark, experiment)
        raise UsageError(f"{path} holds another run ({difference}); {advice}", "run_dir")


def _mark(path: Path, fresh: bool) -> Any:
    try:
        return records.read_mark(path / MARK, Provenance, RUN)
    except StorageError as error:
        kept = "; --fresh deletes nothing in it: choose another directory" if fresh else ""
        raise StorageError(f"{error}{kept}") from error


def _difference(path: Path, mark: Mapping[str, Any], experiment: Experiment) -> tuple[str, str]:
    """Returns how the run in a directory differs from an experiment, and advice on what to do."""
    now, flags = flag_lines(experiment), path / "run.flags"
    then = flags.read_text(errors="replace").splitlines() if flags.is_file() else now
    old, new = [line for line in then if line not in now], [line for line in now if line not in then]
    replace = "choose another directory, or --fresh to replace it"
    change = f"its {' '.join(old)}, yours {' '.join(new)}"
    if not old and not new and mark.get("code") != code(experiment):
        return "made by other source code", replace
    if not old and not new:
        return f"its {MARK} and its run.flags disagree: one of them is damaged", replace
    if [line.partition("#")[0] for line in old] == [line.partition("#")[0] for line in new]:
        return f"{change}: the files have changed since the run began", replace
    if {line.partition("=")[0] for line in old + new} <= {"--steps", "--epochs"}:
        return change, f"to train it for longer: --extend={path} and another --run_dir; else {replace}"
    return change, replace


def _flag_file(experiment: Experiment) -> bytes:
    return ("\n".join(flag_lines(experiment)) + "\n").encode()
