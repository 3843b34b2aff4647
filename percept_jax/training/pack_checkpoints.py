"""The checkpoints of a pack: one in each trial's run directory or, while a wide pack is training, one file for all trials."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np

from percept_jax import records
from percept_jax.errors import StorageError
from percept_jax.experiment import Experiment
from percept_jax.files import Lock
from percept_jax.training import checkpoint, extension
from percept_jax.training.trial import Trial

Row = tuple[dict[str, np.ndarray], Any]


class PackHeader(TypedDict):
    """The header of a pack's checkpoint: the identities of its trials and their headers, by position in the pack."""

    step: int
    width: int
    members: dict[str, str]
    trials: dict[str, Any]


class Resumed(NamedTuple):
    """The checkpoints that trials resume from.

    Attributes:
        rows: arrays and header, by position in the pack.
        notes: messages to the user, one line each.
        extends: with --extend, the directory of the shorter run, and its log up to this step.
    """

    rows: dict[int, Row]
    notes: list[str]
    extends: tuple[Path, bytes] | None = None


class PackCheckpoints:
    """Saves and restores the checkpoints of a pack's trials: arrays and a header for each.

    With `pack_lock`, the lock on a folder, each save is one file there with all trials. When the trials are over, each one gets
    its own checkpoint as well, as if it had run alone.
    """

    def __init__(self, trials: Sequence[Trial], pack_lock: Lock | None = None):
        self._members = {k: trial.run_dir for k, trial in enumerate(trials) if trial.run_dir}
        self._width, self._pack_lock, self.saver = len(trials), pack_lock, checkpoint.Saver()

    def resume(
        self, first: Experiment, steps: int, eval_every: int, drawn: Sequence[Mapping[str, np.ndarray]], template: Any
    ) -> Resumed | None:
        """Returns what the trials resume from: their own newest usable checkpoints, else the run that --extend names.

        Args:
            first: the experiment of the first trial.
            steps: the number of steps of the run.
            eval_every: the number of steps between validations.
            drawn, template: see `newest`.

        Returns:
            The checkpoints; None if the trials begin at step 0.

        Raises:
            StorageError: there are checkpoints, but none is usable.
            UsageError: see `extension.find`.
        """
        if found := self.newest(steps, drawn, template):
            rows, skipped = found
            step = next(iter(rows.values()))[1]["step"]
            return Resumed(rows, [*(f"skipped: {line}" for line in skipped), f"resuming at step {step}"])
        if not first.extend:
            return None
        start = extension.find(first, steps, eval_every)
        _check_fit(start.arrays, template, Path(first.extend))
        note = f"continuing {first.extend} from its step {start.header['step']}"
        return Resumed({0: (start.arrays, start.header)}, [note], (Path(first.extend), start.log))

    def newest(
        self, steps: int, drawn: Sequence[Mapping[str, np.ndarray]], template: Any
    ) -> tuple[dict[int, Row], list[str]] | None:
        """Returns the checkpoints of the newest step at which every trial has a usable one.

        A checkpoint is usable if it is undamaged, belongs to this run and fits the model, and if metrics.jsonl still holds what
        was logged up to its step.

        Args:
            steps: the number of steps of the whole run.
            drawn: the leaves of each trial's state at step 0.
            template: the shapes and dtypes of a trial's pytree.

        Returns:
            Arrays and header by position in the pack, and a line for each newer step that was skipped, with the reason; None
            without any checkpoint.

        Raises:
            StorageError: there are checkpoints, but none is usable.
        """

        def load(step: int) -> dict[int, Row]:
            rows = self._read_common(step) if self._pack_lock else self._read_each(step)
            for k, (arrays, header) in rows.items():
                path = checkpoint.path_of(self._pack_lock.folder if self._pack_lock else self._members[k].checkpoints, step)
                checkpoint.check_header(header, path, self._members[k].identity)
                # The state of a diverged trial is not saved and no longer matters.
                if header["progress"]["diverged_at"] is not None:
                    arrays = {**drawn[k], **arrays}
                _check(arrays, header, steps, template, path)
                self._members[k].check_log(header["log"])
                rows[k] = arrays, header
            return rows

        members = self._members.values()
        folders = [self._pack_lock.folder] if self._pack_lock else [run_dir.checkpoints for run_dir in members]
        return checkpoint.newest(load, *folders)

    def _read_each(self, step: int) -> dict[int, Row]:
        return {k: checkpoint.read(run_dir.checkpoints, step) for k, run_dir in self._members.items()}

    def _read_common(self, step: int) -> dict[int, Row]:
        assert self._pack_lock is not None
        folder, rows = self._pack_lock.folder, {}
        arrays, header = checkpoint.read(folder, step)
        records.checked(header, PackHeader, checkpoint.path_of(folder, step))
        for k, run_dir in self._members.items():
            if header["width"] != self._width or header["members"].get(str(k)) != run_dir.identity:
                raise StorageError(f"{checkpoint.path_of(folder, step)}: belongs to another pack")
            leaves = {name.removeprefix(f"{k}/"): array for name, array in arrays.items() if name.startswith(f"{k}/")}
            rows[k] = leaves, header["trials"].get(str(k))
        return rows

    def save(self, step: int, rows: Mapping[int, Row], over: bool) -> None:
        """Starts to write the checkpoints of `rows`. Raises StorageError if the previous ones could not be written."""
        files = []
        if over or not self._pack_lock:
            for k, (arrays, header) in rows.items():
                last = (self._pack_lock and header["progress"]["stopped_at"]) or step
                run_dir = self._members[k]
                files.append((run_dir.lock, checkpoint.path_of(run_dir.checkpoints, last), arrays, {**header, "step": last}))
        if self._pack_lock:
            common = {f"{k}/{name}": array for k, (arrays, _) in rows.items() for name, array in arrays.items()}
            header = {
                "step": step,
                "width": self._width,
                "members": {k: run_dir.identity for k, run_dir in self._members.items()},
                "trials": {k: header for k, (_, header) in rows.items()},
            }
            files.append((self._pack_lock, checkpoint.path_of(self._pack_lock.folder, step), common, header))
        self.saver.save(files)


def _check(arrays: Mapping[str, np.ndarray], header: checkpoint.Header, steps: int, template: Any, path: Path) -> None:
    """Raises StorageError unless a trial can resume from these arrays in a run of `steps` steps."""
    _check_fit(arrays, template, path)
    progress = header["progress"]
    reached = header["step"] if progress["stopped_at"] is None else progress["stopped_at"]
    if header["steps"] != steps or (progress["diverged_at"] is None and int(arrays["state/step"]) != reached):
        raise StorageError(f"{path}: belongs to a run that does not have {steps} steps, or its state is of another step")


def _check_fit(arrays: Mapping[str, np.ndarray], template: Any, path: Path) -> None:
    try:
        checkpoint.unflatten(dict(arrays), template)
    except StorageError as error:
        raise StorageError(f"{path}: {error}") from error
