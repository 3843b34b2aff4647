"""Draws training.png and confusion.png of a run from the files in its directory. Each picture is written atomically."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from percept_jax import files, metrics, records
from percept_jax.errors import StorageError, first_line
from percept_jax.metrics import Metric
from percept_jax.plots import labels
from percept_jax.plots.figure import new_figure, png
from percept_jax.records import Provenance


def draw_run(path: Path) -> list[Path]:
    """Draws the pictures of a run directory. Returns their paths.

    Raises StorageError for a file that is damaged, after all pictures that do not need it have been drawn.
    """
    drawn, fault = [], None
    for name, picture in _plots(path).items():
        try:
            files.write_bytes(path / name, picture(path))
            drawn.append(path / name)
        except StorageError as error:
            fault = fault or error
    if fault:
        raise fault
    return drawn


def draw_finished_run(path: Path, note: Callable[[str], None], again: bool = False) -> None:
    """Draws the pictures of a finished run, unless another process holds its directory.

    An error is only a note, because nothing that goes wrong in a plotting library may make a run fail.

    Args:
        path: the run directory.
        note: called with a line that says what went wrong.
        again: whether to draw pictures that already exist. Otherwise pictures are drawn only if some are missing, because the run
            was killed before it had drawn them.
    """
    if not again and all((path / name).exists() for name in _plots(path)):
        return
    try:
        with files.locked(path / ".lock") as lock:
            if lock.held:
                draw_run(path)
    except Exception as error:
        note(f"no pictures: {first_line(error)}")


def _plots(path: Path) -> dict[str, Callable[[Path], bytes]]:
    plots: dict[str, Callable[[Path], bytes]] = {"training.png": _training}
    # A run that diverged was never tested, and has no confusion.csv.
    if (path / "confusion.csv").exists():
        plots["confusion.png"] = _confusion
    return plots


def read_log(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a run directory's metrics.jsonl, each with a step, a split and numbers.

    Raises StorageError if there is no such file, or if a line has anything else.
    """
    file = path / "metrics.jsonl"
    if not file.is_file():
        raise StorageError(f"{file}: there is no such file")
    if (path / "result.json").exists():
        records.verify(path, file.name, files.read_bytes(file))
    lines, names = files.read_json_lines(file), {metric.name for metric in metrics_of(path)}
    for i, line in enumerate(lines, 1):
        whole = isinstance(line, dict) and isinstance(line.get("split"), str) and metrics.as_number(line.get("step")) is not None
        if not whole or any(metrics.as_number(line[name]) is None for name in names & line.keys()):
            raise StorageError(f"{file}: line {i} is damaged: it does not hold a step, a split and its metrics")
    return lines


def metrics_of(path: Path) -> tuple[Metric, ...]:
    """Returns the metrics of the run in a directory. Raises StorageError if provenance.json is damaged."""
    mark = path / "provenance.json"
    return metrics.read(records.read(mark, Provenance)) if mark.exists() else metrics.EARLIER


def _training(path: Path) -> bytes:
    """Returns training.png: the loss and the headline metric against the step, on the training and the validation split."""
    lines = read_log(path)
    if not lines:
        raise StorageError(f"{path / 'metrics.jsonl'}: nothing has been logged yet")
    splits = {split: [line for line in lines if line["split"] == split] for split in ("train", "validation")}
    names = {split: {name for line in rows for name in line} for split, rows in splits.items()}
    known = metrics_of(path)
    rising = {metric.name for metric in known if metric.higher_is_better}
    both = names["train"] & names["validation"] & {metric.name for metric in known}
    shown = both if both - {"loss"} else names["train"] | names["validation"]
    figure = new_figure(9, 3.6)
    for axes, name in zip(figure.subplots(1, 2), ("loss", metrics.headline(known, {*shown, "loss"}).name), strict=True):
        for split, style in (("train", {"alpha": 0.6, "linewidth": 1}), ("validation", {"marker": ".", "linewidth": 1.5})):
            rows = [line for line in splits[split] if name in line]
            axes.plot([float(r["step"]) for r in rows], [float(r[name]) for r in rows], label=split, **style)
        axes.set(xlabel="step", ylabel=name)
        axes.grid(alpha=0.3)
        # Curves rarely pass this corner; matplotlib's search for the best place takes seconds for a long log.
        axes.legend(loc="lower right" if name in rising else "upper right")
    if any(line.get("loss", 0) > 0 for line in lines):
        figure.axes[0].set_yscale("log")
    return png(figure)


def _confusion(path: Path) -> bytes:
    """Returns confusion.png: how often each true class of the test split was predicted as each class."""
    names, counts = _read_confusion(path / "confusion.csv")
    size = max(4.5, 0.4 * len(names)) if len(names) <= labels.MOST_NAMES else 12
    figure = new_figure(size, size)
    axes = figure.subplots()
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if len(names) <= labels.MOST_NAMES:
        shown = labels.written(names)
        # A $ in a name must not start a formula.
        style = {"parse_math": False, "fontfamily": shown.families}
        axes.set_xticks(range(len(names)), shown.texts, rotation=90 if shown.columns > 2 else 0, **style)
        axes.set_yticks(range(len(names)), shown.texts, **style)
        for i, j in np.argwhere(counts):
            color = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, str(counts[i, j]), ha="center", va="center", color=color, fontsize=8)
    return png(figure)


def _read_confusion(path: Path) -> tuple[list[str], np.ndarray]:
    """Returns the classes' names, and the counts `[true, predicted]`. Raises StorageError if the file is damaged."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            (_, *names), *rows = csv.reader(file)
        if not names or [row[0] for row in rows] != names or any(len(row) != len(names) + 1 for row in rows):
            raise ValueError("it does not have a row and a column for each class")
        if not all(cell.isascii() and cell.isdigit() and len(cell) < 19 for row in rows for cell in row[1:]):
            raise ValueError("it holds entries that are not counts")
        return names, np.array([row[1:] for row in rows], np.int64)
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise StorageError(f"{path}: cannot be read: {error}") from error
