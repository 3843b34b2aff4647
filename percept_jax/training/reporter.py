"""Shows the progress of a run: a progress bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from percept_jax.console import is_terminal, say
from percept_jax.metrics import Metric


class Reporter:
    """Shows the progress of a run: a bar if standard error is a terminal, else one line per validation on standard output."""

    def __init__(self) -> None:
        self._bar = self._train = None
        self._began = 0.0
        self._first = self._steps = 0
        self._metrics: Sequence[Metric] = ()

    def note(self, text: str) -> None:
        """Prints a line."""
        if self._bar:
            self._draw(lambda bar: bar.console.print(text, markup=False, highlight=False))
        else:
            say(text)

    def start(self, step: int, steps: int, metrics: Sequence[Metric]) -> None:
        """Starts the display before the first step after `step`; later lines show these metrics if they have them."""
        self._began, self._first, self._steps, self._metrics = time.monotonic(), step, steps, metrics
        if is_terminal(sys.stderr):
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            remaining, summary_column = (TextColumn("eta"), TimeRemainingColumn()), TextColumn("{task.fields[summary]}")
            self._bar = Progress(BarColumn(), MofNCompleteColumn(), *remaining, summary_column, console=Console(stderr=True))
            self._bar.add_task("train", total=steps, completed=step, summary="")
            self._draw(lambda bar: bar.start())

    def _draw(self, change: Callable[[Any], None]) -> None:
        """Changes the bar; drops it if the terminal is gone."""
        try:
            change(self._bar)
        except (OSError, ValueError):
            self._bar = None

    def log(self, record: Mapping[str, Any]) -> None:
        """Shows a line of metrics."""
        if record["split"] == "train":
            self._train = record
            if self._bar:
                text = f"{_rate(record)}  {summary(record, self._metrics)}"
                self._draw(lambda bar: bar.update(bar.task_ids[0], completed=record["step"], summary=text))
            return
        text = f"step {record['step']}/{self._steps}  epoch {record['epoch']:.2f}"
        if self._train and record["split"] == "validation":
            text += f"  train {summary(self._train, self._metrics)}"
        text += f"  {record['split']} {summary(record, self._metrics)}"
        if self._train and not self._bar and record["split"] == "validation":
            spent = time.monotonic() - self._began
            left = spent / max(1, record["step"] - self._first) * (self._steps - record["step"])
            text += f"  {_rate(self._train)}  eta {left:.0f} s"
        self.note(text)

    def close(self) -> None:
        """Ends the display."""
        if self._bar:
            self._draw(lambda bar: bar.stop())
            self._bar = None


def summary(numbers: Mapping[str, Any], metrics: Sequence[Metric]) -> str:
    """Returns the metrics that are displayed, with their names: "loss 0.1000 accuracy 0.9800"."""
    names = (metric.name for metric in metrics if metric.shown)
    return " ".join(f"{name.replace('_', ' ')} {numbers[name]:.4f}" for name in names if name in numbers)


def _rate(record: Mapping[str, Any]) -> str:
    return f"{record['examples_per_second']:,.0f} examples/s" if "examples_per_second" in record else ""
