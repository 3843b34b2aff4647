"""SweepProgress: shows the progress of a sweep, as one live line on a terminal and as plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from percept_jax import metrics, records
from percept_jax.console import is_terminal
from percept_jax.errors import StorageError
from percept_jax.metrics import Metric
from percept_jax.sweeps.plan import TrialPlan
from percept_jax.sweeps.sweep_dir import SweepDir
from percept_jax.training.reporter import Reporter

# The minimum seconds between two reads of the run directories.
READ_EVERY = 0.5


class SweepProgress:
    """Shows how many trials are done, running and failed, the remaining time, and the arm with the best validation so far.

    It reads the run directories, so it shows the work of other processes too.
    """

    def __init__(self, dir: SweepDir, metric: Metric, quiet: bool = False):
        self._dir, self._metric, self._quiet = dir, metric, quiet
        self._trials: Mapping[str, TrialPlan] = {}
        self._results: dict[str, Any] = {}
        # The number of trials that were finished before they were added here.
        self._finished_before = 0
        self._began = self._last_read = 0.0
        # The progress of this process's pack, in trials: half-way through a pack of four it is 2.
        self._part = 0.0
        self._shown, self._live = -1, None

    def start(self) -> None:
        """Starts the clock and, on a terminal, the live line."""
        self._began = time.monotonic()
        if is_terminal(sys.stderr) and not self._quiet:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False)
            self._draw(lambda live: live.start())

    def _draw(self, change: Callable[[Any], None]) -> None:
        """Changes the live line; drops it if the terminal is gone."""
        try:
            if self._live:
                change(self._live)
        except (OSError, ValueError):
            self._live = None

    def add(self, trials: Iterable[TrialPlan]) -> None:
        """Adds trials to those that are counted; each trial is counted once."""
        before = self._trials.keys()
        self._trials = {**self._trials, **{trial.id: trial for trial in trials}}
        if before != self._trials.keys():
            done = len(self._results)
            self._read()
            self._finished_before += len(self._results) - done

    def close(self) -> None:
        """Ends the live line."""
        self._draw(lambda live: live.stop())
        self._live = None

    def note(self, text: str) -> None:
        """Prints a line."""
        if self._live:
            self._draw(lambda live: live.console.print(text, markup=False, highlight=False))
        elif not self._quiet:
            Reporter().note(text)

    def refresh(self, now: bool = False) -> None:
        """Reads the run directories and updates the display; without `now`, at most once in READ_EVERY seconds."""
        if not now and time.monotonic() < self._last_read + READ_EVERY:
            return
        self._read()
        if self._live:
            from rich.text import Text

            self._draw(lambda live: live.update(Text(self._summary()), refresh=True))
        elif self._shown != len(self._results):
            self._shown = len(self._results)
            self.note(self._summary())

    def reporter(self, trials: int) -> Reporter:
        """Returns the reporter for a pack of `trials` trials."""
        return _PackReporter(self, trials)

    def advance(self, trials: float) -> None:
        """Sets the progress of this process's pack, in trials."""
        self._part = trials
        self.refresh()

    def _read(self) -> None:
        self._last_read = time.monotonic()
        for trial in self._trials.keys() - self._results.keys():
            # A damaged result is reported when the sweep ends.
            with contextlib.suppress(StorageError):
                if result := records.read_result(self._dir.trial(trial)):
                    self._results[trial] = result

    def _summary(self) -> str:
        done, failed = len(self._results), self._failed()
        left = self._trials.keys() - self._results.keys() - failed
        begun = [trial for trial in left if self._dir.is_started(trial)]
        text = f"{done} of {len(self._trials)} trials done, {len(begun)} begun, {len(failed)} failed"
        finished_here = done - self._finished_before + self._part
        if finished_here > 0 and left:
            text += f"; eta {(len(left) - self._part) * (time.monotonic() - self._began) / finished_here:.0f} s"
        return text + self._best()

    def _failed(self) -> set[str]:
        return (self._dir.failures().keys() & self._trials.keys()) - self._results.keys()

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
        mean = sum(values) / len(values)
        return f"; best on validation: {arm}, {number.replace('_', ' ')} {mean:.4f} (n = {len(values)})"


class _PackReporter(Reporter):
    """Reports the progress of a pack to a SweepProgress."""

    def __init__(self, progress: SweepProgress, trials: int):
        super().__init__()
        self._progress, self._trials = progress, trials

    def note(self, text: str) -> None:
        self._progress.note(text)

    def start(self, step: int, steps: int, metrics: Sequence[Metric]) -> None:
        self._steps = steps

    def log(self, record: Mapping[str, Any]) -> None:
        if record["split"] != "test":
            self._progress.advance(self._trials * record["step"] / self._steps)

    def close(self) -> None:
        self._progress.advance(0)
