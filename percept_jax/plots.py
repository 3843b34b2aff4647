"""Pictures, drawn from the files in a run directory."""

import csv
import json
from pathlib import Path
from typing import Any


def draw(path: Path) -> None:
    """Draws training.png, and confusion.png where the run was tested, from the other files of a run directory."""
    _training(path)
    if (path / "confusion.csv").exists():  # a run that diverged was never tested
        _confusion(path)


def _training(path: Path) -> None:
    """training.png: loss and accuracy against the step, on the training and the validation split."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    figure = _figure(9, 3.6)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split, style in (("train", {"alpha": 0.6, "linewidth": 1}), ("validation", {"marker": ".", "linewidth": 1.5})):
            rows = [line for line in lines if line["split"] == split]
            axes.plot([r["step"] for r in rows], [r[name] for r in rows], label=split, **style)
        axes.set(xlabel="step", ylabel=name)
        axes.grid(alpha=0.3)
        axes.legend()
    if any(line["loss"] > 0 for line in lines):
        figure.axes[0].set_yscale("log")
    figure.savefig(path / "training.png")


def _confusion(path: Path) -> None:
    """confusion.png: how often each true class of the test split was taken for each class."""
    with open(path / "confusion.csv", newline="") as file:
        (_, *names), *rows = csv.reader(file)
    counts = [[int(n) for n in row[1:]] for row in rows]
    size = max(4.5, 0.4 * len(names)) if len(names) <= 40 else 12
    figure = _figure(size, size)
    axes = figure.subplots()
    shares = [[n / max(1, sum(row)) for n in row] for row in counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if len(names) <= 40:
        axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(range(len(names)), names)
        for i, row in enumerate(counts):
            for j, n in enumerate(row):
                if n:
                    axes.text(j, i, n, ha="center", va="center", color="white" if shares[i][j] > 0.5 else "black", fontsize=8)
    figure.savefig(path / "confusion.png")


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # imports for a second: not before training

    return Figure(figsize=(width, height), layout="constrained")
