"""Where the checkpoints of a pack are: with each of its trials, or, while a wide pack is on its way, all in one file."""

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
    """The header of a pack's checkpoint: the identities of its trials, and their headers, by place."""

    step: int
    width: int
    members: dict[str, str]
    trials: dict[str, Any]


class Resumed(NamedTuple):
    """What trials go on from.

    Attributes:
        rows: arrays and header, by place in the pack.
        notes: what a person is told, a line each.
        extends: the run directory that they are from, and its log up to there, where it is another one.
    """

    rows: dict[int, Row]
    notes: list[str]
    extends: tuple[Path, bytes] | None = None


class PackCheckpoints:
    """Saves what is needed of each trial to go on, arrays and a header, and finds it again.

    With a folder there is one file a step, whose header says who is in it; when the trials are over each gets its own as well,
    as if it had run alone.
    """

    def __init__(self, trials: Sequence[Trial], held: Lock | None = None):
        self._members = {k: trial.run_dir for k, trial in enumerate(trials) if trial.run_dir}
        self._width, self._held, self.saver = len(trials), held, checkpoint.Saver()

    def resume(
        self, first: Experiment, steps: int, eval_every: int, drawn: Sequence[Mapping[str, np.ndarray]], template: Any
    ) -> Resumed | None:
        """What the trials go on from: their own newest checkpoints that will do, else the run that --extend names.

        Args:
            first: the experiment of the first trial.
            steps, eval_every: of the run, and between validations.
            drawn, template: see `newest`.

        Returns:
            That; None where the trials begin at step 0.

        Raises:
            StorageError: there are checkpoints, and none will do.
            UsageError: see `extension.find`.
        """
        if found := self.newest(steps, drawn, template):
            rows, passed_over = found
            step = next(iter(rows.values()))[1]["step"]
            return Resumed(rows, [*(f"passed over: {line}" for line in passed_over), f"resuming at step {step}"])
        if not first.extend:
            return None
        start = extension.find(first, steps, eval_every)
        _check_fit(start.arrays, template, Path(first.extend))
        note = f"{first.extend}: going on from its step {start.header['step']}"
        return Resumed({0: (start.arrays, start.header)}, [note], (Path(first.extend), start.log))

    def newest(
        self, steps: int, drawn: Sequence[Mapping[str, np.ndarray]], template: Any
    ) -> tuple[dict[int, Row], list[str]] | None:
        """By place in the pack, from the newest step of which every trial has a checkpoint that will do.

        It will do if it is whole, and this run's, and fits, and if metrics.jsonl still holds what was logged up to then.

        Args:
            steps: of the whole run.
            drawn: the leaves of each trial's state at step 0.
            template: the shapes and dtypes of a trial's pytree.

        Returns:
            The rows, and why newer steps were passed over, a line each; None where there is no checkpoint.

        Raises:
            StorageError: there are some, and none will do.
        """

        def take(step: int) -> dict[int, Row]:
            rows = self._together(step) if self._held else self._each(step)
            for k, (arrays, header) in rows.items():
                path = checkpoint.path_of(self._held.folder if self._held else self._members[k].checkpoints, step)
                checkpoint.check_header(header, path, self._members[k].identity)
                # Its state was not saved, and does not matter any more.
                if header["progress"]["diverged_at"] is not None:
                    arrays = {**drawn[k], **arrays}
                _check(arrays, header, steps, template, path)
                self._members[k].check_log(header["log"])
                rows[k] = arrays, header
            return rows

        folders = [self._held.folder] if self._held else [run_dir.checkpoints for run_dir in self._members.values()]
        return checkpoint.newest(take, *folders)

    def _each(self, step: int) -> dict[int, Row]:
        return {k: checkpoint.read(run_dir.checkpoints, step) for k, run_dir in self._members.items()}

    def _together(self, step: int) -> dict[int, Row]:
        assert self._held is not None
        folder, rows = self._held.folder, {}
        arrays, header = checkpoint.read(folder, step)
        records.checked(header, PackHeader, checkpoint.path_of(folder, step))
        for k, run_dir in self._members.items():
            if header["width"] != self._width or header["members"].get(str(k)) != run_dir.identity:
                raise StorageError(f"{checkpoint.path_of(folder, step)}: a checkpoint of another pack")
            own = {name.removeprefix(f"{k}/"): array for name, array in arrays.items() if name.startswith(f"{k}/")}
            rows[k] = own, header["trials"].get(str(k))
        return rows

    def save(self, step: int, rows: Mapping[int, Row], over: bool) -> None:
        """Starts to write rows by place in the pack. Raises StorageError where the last ones could not be written."""
        files = []
        if over or not self._held:
            for k, (arrays, header) in rows.items():
                at = (self._held and header["progress"]["stopped_at"]) or step
                run_dir = self._members[k]
                files.append((run_dir.lock, checkpoint.path_of(run_dir.checkpoints, at), arrays, {**header, "step": at}))
        if self._held:
            together = {f"{k}/{name}": array for k, (arrays, _) in rows.items() for name, array in arrays.items()}
            header = {
                "step": step,
                "width": self._width,
                "members": {k: run_dir.identity for k, run_dir in self._members.items()},
                "trials": {k: header for k, (_, header) in rows.items()},
            }
            files.append((self._held, checkpoint.path_of(self._held.folder, step), together, header))
        self.saver.save(files)


def _check(arrays: Mapping[str, np.ndarray], header: checkpoint.Header, steps: int, template: Any, path: Path) -> None:
    """Raises StorageError unless a trial can go on from these arrays to the end of a run of so many steps."""
    _check_fit(arrays, template, path)
    progress = header["progress"]
    reached = header["step"] if progress["stopped_at"] is None else progress["stopped_at"]
    if header["steps"] != steps or (progress["diverged_at"] is None and int(arrays["state/step"]) != reached):
        raise StorageError(f"{path}: not of a run of {steps} steps, or its state is of another step")


def _check_fit(arrays: Mapping[str, np.ndarray], template: Any, path: Path) -> None:
    try:
        checkpoint.unflatten(dict(arrays), template)
    except StorageError as error:
        raise StorageError(f"{path}: {error}") from error
