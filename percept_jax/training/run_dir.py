"""The files that a run leaves, and the lock on them."""

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
from percept_jax.training.identity import code, flag_lines, identity
from percept_jax.training.provenance import ROOT, provenance
from percept_jax.training.tensorboard import EventFile

# Says whose the directory is.
MARK = "provenance.json"
# What a run writes beside its mark, its lock and its checkpoints.
_OURS = re.compile(
    r"result\.json|run\.flags|metrics\.jsonl|confusion\.csv|(training|confusion|boundary)\.png"
    r"|events\.out\.tfevents\.\d+\..+\.percept"
)
_WRITTEN = re.compile(rf"{_OURS.pattern}|{re.escape(MARK)}")


def run_path(experiment: Experiment, name: str) -> Path:
    """Where the run goes: --run_dir, else runs/<name>/<id> in the repository. Raises UsageError where nothing can go there."""
    folder = runs_folder(name)
    return output_path(experiment.run_dir, "run_dir") if experiment.run_dir else folder / identity(experiment)


def runs_folder(name: str, root: Path | None = None) -> Path:
    """runs/<name> in the repository, or in `root`. Raises UsageError for a name with a path in it."""
    if name != Path(name).name or name in ("", ".", ".."):
        raise UsageError(f"{name!r} is not a name for a folder under runs/")
    return user_path((root or ROOT) / "runs" / name)


def data_path(data_dir: str) -> Path:
    """Where data sets are: --data_dir, else $TFDS_DATA_DIR, else data/ in the repository. Raises UsageError for no path."""
    if data_dir:
        return user_path(data_dir, "data_dir")
    return user_path(os.environ.get("TFDS_DATA_DIR") or ROOT / "data", where="TFDS_DATA_DIR")


class RunDir:
    """A run directory that this process holds: one at a time, and only for the run that it was made for.

    Every name of a file in it is known here. What has another name, or is a link, is never touched.

    Attributes:
        path: the directory.
        checkpoints: the folder in it that they are in.
        identity: of the run.
        lock: on the directory.
    """

    def __init__(self, path: Path, experiment: Experiment):
        """Takes the directory, or makes it. Raises UsageError where it is another run's, StorageError where it is in use."""
        # Nothing in it is reached through a link.
        path = path.resolve() if path.is_symlink() else path
        self.path, self.experiment, self.identity = path, experiment, identity(experiment)
        self.checkpoints = path / "checkpoints"
        self._metrics: TextIO | None = None
        self._events: EventFile | None = None
        refuse_strangers(path, experiment)
        self.lock = files.Lock(path / ".lock", path)
        if not self.lock.held:
            raise Busy(f"{path}: another process is training here")
        try:
            # Once more, now that nobody else changes it.
            refuse_strangers(path, experiment)
            mark = records.read_mark(path / MARK, Provenance, RUN)
            clearing = mark is not None and (experiment.fresh or mark["clearing"])
            if mark is None or clearing:
                mark = self._begun([], 1) | {"clearing": clearing}
                # First: what is cut short from here on is known to be this run's.
                records.write(path / MARK, mark)
            if clearing:
                self._clear()
                mark |= {"clearing": False}
                records.write(path / MARK, mark)
            self._record: dict[str, Any] = mark
            for folder, name in ((path, _WRITTEN), (self.checkpoints, checkpoint.NAME)):
                deletion.delete_temporaries(self.lock, folder, name)
        except BaseException:
            self.close()
            raise

    @property
    def restarts(self) -> list[dict[str, Any]]:
        """The starts after the first, with the step that each began from and the steps that it did again."""
        return self._record["restarts"]

    def check_log(self, promise: Mapping[str, Any]) -> None:
        """Raises StorageError unless metrics.jsonl begins with the lines that a checkpoint was saved with, see `promise`."""
        if files.digest(self._logged(promise["lines"])) != promise["digest"]:
            said = f"does not hold the {promise['lines']} lines of metrics that the checkpoint was saved with"
            raise StorageError(f"{self.path / 'metrics.jsonl'}: damaged: it {said}")

    def _logged(self, lines: int) -> bytes:
        """The first lines of metrics.jsonl, as they are."""
        path = self.path / "metrics.jsonl"
        content = files.read_bytes(path) if path.exists() else b""
        return b"".join(line + b"\n" for line in content.split(b"\n")[:-1][:lines])

    def begin(
        self,
        step: int,
        devices: Sequence[str],
        task: Task,
        pack: int = 1,
        promise: Mapping[str, Any] | None = None,
        extends: tuple[Path, bytes] | None = None,
    ) -> None:
        """Writes down how this process was started, and cuts the metrics back to the step that it goes on from.

        Args:
            step: the first one is the next.
            devices: their names.
            task: what the run is measured by.
            pack: trials that are stepped together.
            promise: what the checkpoint says of the log; None: there is none.
            extends: the run directory that the checkpoint is from, and its log up to then, where it is another one.
        """
        kept = extends[1] if extends else self._logged(promise["lines"] if promise else 0)
        record = self._record
        if record["devices"]:
            redone = {"from_step": step, "redone_steps": max(0, self._reached() - step)}
            record["restarts"].append({**provenance(), "devices": list(devices), "pack": pack, **redone})
            # What was done in another pack counts no more.
            record["pack"] = pack if step == 0 else record["pack"]
        else:
            self._record = record = self._begun(devices, pack)
        if extends:
            record["extends"] = {"run_dir": str(extends[0]), "step": step}
        record |= {"task": task.name, "metrics": metrics.recorded(task.metrics)}
        record.pop("files", None)
        records.write(self.path / MARK, record)
        files.write_bytes(self.path / "run.flags", _flag_file(self.experiment))
        files.write_bytes(self.path / "metrics.jsonl", kept)
        self._state, self._lines = hashlib.blake2b(kept, digest_size=16), kept.count(b"\n")
        self._metrics = files.open_to_append(self.path / "metrics.jsonl")
        self._events = EventFile(self.path, step, {metric.name for metric in task.metrics})

    def _begun(self, devices: Sequence[str], pack: int) -> dict[str, Any]:
        """provenance.json of a first start; without devices, it has not come to its first step."""
        made = {"format": RUN, "identity": self.identity, "code": code(self.experiment), "clearing": False}
        return {**made, **provenance(), "devices": list(devices), "pack": pack, "restarts": []}

    def _reached(self) -> int:
        """The last step that metrics.jsonl tells of, as far as it can be read."""
        reached, path = 0, self.path / "metrics.jsonl"
        for line in files.read_bytes(path).split(b"\n") if path.exists() else ():
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                reached = max(reached, json.loads(line)["step"])
        return reached

    def log(self, record: Mapping[str, Any]) -> None:
        """Adds a line to metrics.jsonl, and its numbers to the event file. Raises StorageError."""
        line = json.dumps(record, allow_nan=False) + "\n"
        assert self._metrics is not None
        assert self._events is not None
        try:
            self._metrics.write(line)
            self._events.write(record)
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror or error}") from error
        self._state.update(line.encode())
        self._lines += 1

    def promise(self) -> dict[str, Any]:
        """What a checkpoint says of the log: its lines so far, which are on the disk now, and their checksum."""
        assert self._metrics is not None
        try:
            self._metrics.flush()
            os.fsync(self._metrics.fileno())
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror or error}") from error
        return {"lines": self._lines, "digest": self._state.hexdigest()}

    def write_confusion(self, confusion: np.ndarray, classes: Sequence[str]) -> None:
        """Writes confusion.csv: a row a true class, a column a predicted one, with their names."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["true \\ predicted", *classes])
        table.writerows([name, *row] for name, row in zip(classes, confusion.tolist(), strict=True))
        files.write_bytes(self.path / "confusion.csv", text.getvalue().encode())

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Writes result.json, the last file of a run; before it, the checksums of all that is read back."""
        content = files.json_bytes(result)
        there = [name for name in ("run.flags", "metrics.jsonl", "confusion.csv") if (self.path / name).exists()]
        sums = {name: files.digest(files.read_bytes(self.path / name)) for name in there}
        self._record |= {"files": sums | {"result.json": files.digest(content)}}
        records.write(self.path / MARK, self._record)
        files.write_bytes(self.path / "result.json", content)

    def close(self) -> None:
        """Closes the files and lets go of the directory."""
        for held in (self._metrics, self._events):
            if held:
                # A full disk has been told of where it was met.
                with contextlib.suppress(OSError):
                    held.close()
        self.lock.release()

    def _clear(self) -> None:
        deletion.delete_matching(self.lock, self.checkpoints, checkpoint.NAME)
        deletion.delete_matching(self.lock, self.path, _OURS)


def delete_run(path: Path, run: str) -> None:
    """Deletes the run directory `path` of the run with the identity `run`, but for what a run does not write.

    Raises Busy where another process holds it, StorageError where it is not that run's.
    """
    mark = records.read_mark(path / MARK, Provenance, RUN)
    if mark is None or mark["identity"] != run:
        raise StorageError(f"{path}: not the run {run}, so it is not deleted")
    with files.locked(path / ".lock") as lock:
        if not lock.held:
            raise Busy(f"{path}: another process is training here")
        for folder, name in ((path / "checkpoints", checkpoint.NAME), (path, _OURS)):
            deletion.delete_temporaries(lock, folder, checkpoint.NAME if name is checkpoint.NAME else _WRITTEN)
            deletion.delete_matching(lock, folder, name)
        deletion.delete_empty_folder(lock, path / "checkpoints")
        if {there.name for there in path.iterdir()} <= {MARK, ".lock"}:
            deletion.delete_file(lock, path / MARK)
            deletion.delete_file(lock, path / ".lock")
            deletion.delete_empty_folder(lock, path)


def refuse_strangers(path: Path, experiment: Experiment) -> None:
    """Raises UsageError where `path` holds something else than this experiment's run. Touches nothing."""
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        raise UsageError(f"{path} is not a directory", "run_dir")
    if (mark := _mark(path, experiment.fresh)) is None:
        if any(not p.name.startswith(".") for p in path.iterdir()):
            raise UsageError(f"{path} holds something that is not a run", "run_dir")
        return
    for there in path.iterdir():
        odd = there.is_symlink() or not there.is_file()
        if odd and (_OURS.fullmatch(there.name) or there.name in (MARK, ".lock")):
            raise UsageError(f"{there} is a link or no file; a run writes there, and never through a link", "run_dir")
    if (path / "checkpoints").is_symlink():
        raise UsageError(f"{path / 'checkpoints'} is a link; a run deletes old checkpoints, never through one", "run_dir")
    if not experiment.fresh and mark["identity"] != identity(experiment):
        difference, advice = _difference(path, mark, experiment)
        raise UsageError(f"{path} holds another run ({difference}); {advice}", "run_dir")


def _mark(path: Path, fresh: bool) -> Any:
    try:
        return records.read_mark(path / MARK, Provenance, RUN)
    except StorageError as error:
        kept = "; nothing in it is deleted, choose another directory" if fresh else ""
        raise StorageError(f"{error}{kept}") from error


def _difference(path: Path, mark: Mapping[str, Any], experiment: Experiment) -> tuple[str, str]:
    """What the run in a directory is otherwise than an experiment, and what to do."""
    now, flags = flag_lines(experiment), path / "run.flags"
    then = flags.read_text(errors="replace").splitlines() if flags.is_file() else now
    lost, new = [line for line in then if line not in now], [line for line in now if line not in then]
    replace = "choose another directory, or --fresh to replace it"
    told = f"its {' '.join(lost)}, yours {' '.join(new)}"
    if not lost and not new and mark.get("code") != code(experiment):
        return "made by other source code", replace
    if not lost and not new:
        return "its mark and its run.flags do not agree: one of them is damaged", replace
    if [line.partition("#")[0] for line in lost] == [line.partition("#")[0] for line in new]:
        return f"{told}: the files are not what they were when it was begun", replace
    if {line.partition("=")[0] for line in lost + new} <= {"--steps", "--epochs"}:
        return told, f"to train it for longer: --extend={path} and another --run_dir; else {replace}"
    return told, replace


def _flag_file(experiment: Experiment) -> bytes:
    return ("\n".join(flag_lines(experiment)) + "\n").encode()
