"""What a person sees of a sweep on its way: one live line on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from percept_jax import metrics, records
from percept_jax.console import is_terminal
from percept_jax.errors import StorageError
from percept_jax.metrics import Metric
from percept_jax.records import read_failures
from percept_jax.sweeps.plan import Planned
from percept_jax.training.reporter import Reporter

# Seconds between looks at the disk.
EVERY = 0.5


class Board:
    """Trials done, running and failed, the time that is left, and the arm that validates best so far.

    It reads what is in the run directories, so it shows the work of other processes too.
    """

    def __init__(self, folder: Path, metric: Metric, quiet: bool = False):
        self._folder, self._metric, self._quiet = folder, metric, quiet
        self._trials: Mapping[str, Planned] = {}
        self._results: dict[str, Any] = {}
        self._before = self._began = self._looked = 0.0
        self._told, self._part, self._live = "", 0.0, None

    def start(self) -> None:
        """The first trials are about to run."""
        self._began = time.monotonic()
        if is_terminal(sys.stderr) and not self._quiet:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False)
            self._draw(lambda live: live.start())

    def _draw(self, change: Callable[[Any], None]) -> None:
        """Changes the live line; without a terminal any more there is none."""
        try:
            if self._live:
                change(self._live)
        except (OSError, ValueError):
            self._live = None

    def add(self, trials: Iterable[Planned]) -> None:
        """There are these trials too; tuning may have found their settings."""
        before = self._trials.keys()
        self._trials = {**self._trials, **{trial.id: trial for trial in trials}}
        if before != self._trials.keys():
            done = len(self._results)
            self._look()
            self._before += len(self._results) - done

    def close(self) -> None:
        """No more is going to be run."""
        self._draw(lambda live: live.stop())
        self._live = None

    def note(self, text: str) -> None:
        """A line of its own."""
        if self._live:
            self._draw(lambda live: live.console.print(text, markup=False, highlight=False))
        elif not self._quiet:
            Reporter().note(text)

    def refresh(self, now: bool = False) -> None:
        """Shows what has changed since the last look; looks every half second at most, unless `now`."""
        if not now and time.monotonic() < self._looked + EVERY:
            return
        self._look()
        if self._live:
            from rich.text import Text

            self._draw(lambda live: live.update(Text(self._said()), refresh=True))
        elif self._told != str(len(self._results)):
            self._told = str(len(self._results))
            self.note(self._said())

    def reporter(self, trials: int) -> Reporter:
        """What a pack of so many trials reports to."""
        return _PackReporter(self, trials)

    def advance(self, trials: float) -> None:
        """The pack on its way has come as far as if so many of its trials were done."""
        self._part = trials
        self.refresh()

    def _look(self) -> None:
        self._looked = time.monotonic()
        for trial in self._trials.keys() - self._results.keys():
            # A damaged one is told of in the end.
            with contextlib.suppress(StorageError):
                if result := records.read_result(self._folder / "trials" / trial):
                    self._results[trial] = result

    def _said(self) -> str:
        done, failed, folder = len(self._results), self._failed(), self._folder / "trials"
        left = self._trials.keys() - self._results.keys() - failed
        begun = [trial for trial in left if (folder / trial / "provenance.json").exists()]
        text = f"{done} of {len(self._trials)} trials done, {len(begun)} begun, {len(failed)} failed"
        fresh = done - self._before + self._part
        if fresh > 0 and left:
            text += f"; eta {(len(left) - self._part) * (time.monotonic() - self._began) / fresh:.0f} s"
        return text + self._best()

    def _failed(self) -> set[str]:
        return (read_failures(self._folder).keys() & self._trials.keys()) - self._results.keys()

    def _best(self) -> str:
        number, by_arm = self._metric.name, {}
        for trial, result in self._results.items():
            value = metrics.as_number((result["validation"] or {}).get(number))
            if result["status"] == "done" and value is not None:
                by_arm.setdefault(self._trials[trial].arm, []).append(value)
        if not by_arm:
            return ""
        sign = self._metric.sign
        arm, values = max(by_arm.items(), key=lambda item: sign * sum(item[1]) / len(item[1]))
        said = number.replace("_", " ")
        return f"; best on validation: {arm}, {said} {sum(values) / len(values):.4f} (n = {len(values)})"


class _PackReporter(Reporter):
    """Tells a board how far a pack has come."""

    def __init__(self, board: Board, trials: int):
        super().__init__()
        self._board, self._trials = board, trials

    def note(self, text: str) -> None:
        self._board.note(text)

    def start(self, step: int, steps: int, metrics: Sequence[Metric]) -> None:
        self._steps = steps

    def log(self, record: Mapping[str, Any]) -> None:
        if record["split"] != "test":
            self._board.advance(self._trials * record["step"] / self._steps)

    def close(self) -> None:
        self._board.advance(0)
