"""Pictures, drawn from the files in a run directory or from arrays."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from percept_jax import files


def draw(path: Path) -> list[Path]:
    """Draws training.png, and confusion.png where the run was tested, from the other files of a run directory; their paths."""
    drawn = [_training(path)]
    if (path / "confusion.csv").exists():  # a run that diverged was never tested
        drawn.append(_confusion(path))
    return drawn


def boundary(
    path: Path,
    x: np.ndarray,
    y: np.ndarray,
    labels: np.ndarray,
    points: Mapping[str, tuple[np.ndarray, np.ndarray]],
    features: Sequence[str],
    classes: Sequence[str],
) -> None:
    """Draws the class of each place of a plane, and points upon it.

    Args:
        path: the picture.
        x, y: the plane's coordinates, `[columns]` and `[rows]`.
        labels: the class of each place, int `[rows, columns]`.
        points: by split, points `[points, 2]` and their labels.
        features: what x and y are.
        classes: a name for each label.
    """
    figure = _figure(5.5, 5)
    axes = figure.subplots()
    axes.pcolormesh(x, y, labels, cmap=_colours(len(classes), 0.35), vmin=-0.5, vmax=len(classes) - 0.5, rasterized=True)
    for (split, (places, truth)), marker in zip(points.items(), "o^", strict=True):
        for label, name in enumerate(classes):
            here = places[truth == label]
            style = {"marker": marker, "s": 22, "edgecolors": "black", "linewidths": 0.5}
            axes.scatter(here[:, 0], here[:, 1], color=_colours(len(classes))(label), label=f"{name} ({split})", **style)
    axes.set(xlabel=features[0], ylabel=features[1])
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=150)


def grid(path: Path, images: np.ndarray) -> None:
    """Draws uint8 images `[rows, columns, height, width, 1 or 3]` in rows and columns; the first column is the originals."""
    rows, columns = images.shape[:2]
    figure = _figure(columns * 0.9, rows * 0.9 + 0.3)
    for axes, image in zip(
        figure.subplots(rows, columns, squeeze=False).flat, images.reshape(-1, *images.shape[2:]), strict=True
    ):
        axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()
    figure.axes[0].set_title("original", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _training(path: Path) -> Path:
    """training.png: loss and accuracy (or rmse) against the step, on the training and the validation split."""
    lines = files.read_json_lines(path / "metrics.jsonl")
    figure = _figure(9, 3.6)
    other = "rmse" if any("rmse" in line for line in lines) else "accuracy"
    for axes, name in zip(figure.subplots(1, 2), ("loss", other), strict=True):
        for split, style in (("train", {"alpha": 0.6, "linewidth": 1}), ("validation", {"marker": ".", "linewidth": 1.5})):
            rows = [line for line in lines if line["split"] == split and name in line]
            axes.plot([r["step"] for r in rows], [r[name] for r in rows], label=split, **style)
        axes.set(xlabel="step", ylabel=name)
        axes.grid(alpha=0.3)
        axes.legend()
    if any(line["loss"] > 0 for line in lines):
        figure.axes[0].set_yscale("log")
    figure.savefig(path / "training.png")
    return path / "training.png"


def _confusion(path: Path) -> Path:
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
        axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0, parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)  # $ is a letter like any other
        for i, row in enumerate(counts):
            for j, n in enumerate(row):
                if n:
                    axes.text(j, i, n, ha="center", va="center", color="white" if shares[i][j] > 0.5 else "black", fontsize=8)
    figure.savefig(path / "confusion.png")
    return path / "confusion.png"


def _colours(count: int, strength: float = 1.0) -> Any:
    from matplotlib.colors import ListedColormap

    shades = np.array([(0.12, 0.47, 0.71), (1.0, 0.5, 0.05), (0.17, 0.63, 0.17), (0.84, 0.15, 0.16), (0.58, 0.4, 0.74)])
    return ListedColormap([1 - strength * (1 - shades[i % len(shades)]) for i in range(count)])


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # imports for a second: not before training

    return Figure(figsize=(width, height), layout="constrained")
