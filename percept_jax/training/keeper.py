"""Where the checkpoints of a pack are: with each of its trials, or, while a wide pack is on its way, all in one file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from percept_jax.errors import StorageError
from percept_jax.training import checkpoint
from percept_jax.training.trial import Trial

Row = tuple[dict[str, np.ndarray], Any]


class Keeper:
    """Saves what is needed of each trial to go on, arrays and a header, and finds it again.

    With a folder there is one file a step, whose header says who is in it; when the trials are over each gets its own as well,
    as if it had run alone.
    """

    def __init__(self, trials: Sequence[Trial], folder: Path | None = None):
        self._members = {k: trial.run_dir for k, trial in enumerate(trials) if trial.run_dir}
        self._width, self._folder, self.saver = len(trials), folder, checkpoint.Saver()

    def newest(self) -> dict[int, Row] | None:
        """By place in the pack, from the newest step of which everything is there and whole; None without one.

        Raises StorageError where there are some, and each is damaged, or where the file is of another pack.
        """
        if not self._folder:
            found = checkpoint.newest(*(run_dir.checkpoints for run_dir in self._members.values()))
            return found and dict(zip(self._members, found, strict=True))
        found = checkpoint.newest(self._folder)
        if found is None:
            return None
        (arrays, header), rows = found[0], {}
        for k, run_dir in self._members.items():
            if header["width"] != self._width or header["members"].get(str(k)) != run_dir.identity:
                raise StorageError(f"{self._folder}: a checkpoint of another pack")
            own = {name.removeprefix(f"{k}/"): array for name, array in arrays.items() if name.startswith(f"{k}/")}
            rows[k] = own, header["trials"][str(k)]
        return rows

    def save(self, step: int, rows: Mapping[int, Row], over: bool) -> None:
        """Starts to write rows by place in the pack. Raises StorageError where the last ones could not be written."""
        files = []
        if over or not self._folder:
            for k, (arrays, header) in rows.items():
                at = (self._folder and header["progress"]["stopped_at"]) or step
                files.append((checkpoint.path_of(self._members[k].checkpoints, at), arrays, {**header, "step": at}))
        if self._folder:
            together = {f"{k}/{name}": array for k, (arrays, _) in rows.items() for name, array in arrays.items()}
            header = {
                "step": step,
                "width": self._width,
                "members": {k: run_dir.identity for k, run_dir in self._members.items()},
                "trials": {k: header for k, (_, header) in rows.items()},
            }
            files.append((checkpoint.path_of(self._folder, step), together, header))
        self.saver.save(files)
