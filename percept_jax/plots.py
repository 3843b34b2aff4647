"""Pictures, drawn from the files in a run directory or from arrays. Each is drawn in memory, and put in place in one piece."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from percept_jax import files, labels, metrics, records
from percept_jax.errors import StorageError
from percept_jax.metrics import Metric
from percept_jax.records import Provenance

NAMED = 40  # classes of which a picture writes the names; of more it shows the colors alone


def draw(path: Path) -> list[Path]:
    """Draws training.png, and confusion.png where the run was tested, from the other files of a run directory; their paths.

    Raises StorageError for a file that is damaged, when all pictures that do not need it are drawn.
    """
    drawn, fault = [], None
    pictures: dict[str, Callable[[Path], bytes]] = {"training.png": _training}
    if (path / "confusion.csv").exists():  # a run that diverged was never tested
        pictures["confusion.png"] = _confusion
    for name, picture in pictures.items():
        try:
            files.write_bytes(path / name, picture(path))
            drawn.append(path / name)
        except StorageError as error:
            fault = fault or error
    if fault:
        raise fault
    return drawn


def boundary(
    path: Path,
    x: np.ndarray,
    y: np.ndarray,
    labels_of: np.ndarray,
    points: Mapping[str, tuple[np.ndarray, np.ndarray]],
    features: Sequence[str],
    classes: Sequence[str],
) -> None:
    """Draws the class of each place of a plane, and points upon it.

    Args:
        path: the picture.
        x, y: the plane's coordinates, `[columns]` and `[rows]`.
        labels_of: the class of each place, int `[rows, columns]`.
        points: by split, points `[points, 2]` and their labels.
        features: what x and y are.
        classes: a name for each label.
    """
    picture = figure(5.5, 5)
    axes = picture.subplots()
    axes.pcolormesh(x, y, labels_of, cmap=_colours(len(classes), 0.35), vmin=-0.5, vmax=len(classes) - 0.5, rasterized=True)
    names = labels.written(classes)
    for (split, (places, truth)), marker in zip(points.items(), "o^", strict=True):
        for label, name in enumerate(names.texts):
            here = places[truth == label]
            style = {"marker": marker, "s": 22, "edgecolors": "black", "linewidths": 0.5}
            text = f"{name} ({split})"
            text = " " + text if text.startswith("_") else text  # matplotlib leaves such a label out
            axes.scatter(here[:, 0], here[:, 1], color=_colours(len(classes))(label), label=text, **style)
    axes.set_xlabel(features[0], parse_math=False)
    axes.set_ylabel(features[1], parse_math=False)
    if len(classes) <= NAMED // 4:
        for text in axes.legend(prop={"family": names.families, "size": 7}).get_texts():
            text.set_parse_math(False)
    files.write_bytes(path, png(picture, 150))


def grid(path: Path, images: np.ndarray) -> None:
    """Draws uint8 images `[rows, columns, height, width, 1 or 3]` in rows and columns; the first column is the originals."""
    rows, columns = images.shape[:2]
    picture = figure(columns * 0.9, rows * 0.9 + 0.3)
    for axes, image in zip(
        picture.subplots(rows, columns, squeeze=False).flat, images.reshape(-1, *images.shape[2:]), strict=True
    ):
        axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()
    picture.axes[0].set_title("original", fontsize=8)
    files.write_bytes(path, png(picture, 120))


def logged(path: Path) -> list[dict[str, Any]]:
    """The lines of a run directory's metrics.jsonl, each with a step, a split, and numbers.

    Raises StorageError where there is no such file, or a line of it is something else.
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
            raise StorageError(f"{file}: line {i} is damaged: it is not a step, a split and its metrics")
    return lines


def metrics_of(path: Path) -> tuple[Metric, ...]:
    """Returns what the run in a directory is measured by. Raises StorageError where provenance.json is damaged."""
    mark = path / "provenance.json"
    return metrics.read(records.read(mark, Provenance)) if mark.exists() else metrics.EARLIER


def figure(width: float, height: float) -> Any:
    """A figure of so many inches."""
    from matplotlib.figure import Figure  # imports for a second: not before training

    return Figure(figsize=(width, height), layout="constrained")


def png(picture: Any, dpi: int = 100) -> bytes:
    """A figure as the bytes of a PNG file, the same ones each time."""
    content = io.BytesIO()
    picture.savefig(content, dpi=dpi, format="png", metadata={"Software": None})
    return content.getvalue()


def _training(path: Path) -> bytes:
    """training.png: loss and the metric that tells most of both splits against the step, on training and validation."""
    lines = logged(path)
    if not lines:
        raise StorageError(f"{path / 'metrics.jsonl'}: nothing has been logged yet")
    splits = {split: [line for line in lines if line["split"] == split] for split in ("train", "validation")}
    of = {split: {name for line in rows for name in line} for split, rows in splits.items()}
    known = metrics_of(path)
    both = of["train"] & of["validation"] & {metric.name for metric in known}
    shown = both if both - {"loss"} else of["train"] | of["validation"]
    picture = figure(9, 3.6)
    for axes, name in zip(picture.subplots(1, 2), ("loss", metrics.headline(known, {*shown, "loss"}).name), strict=True):
        for split, style in (("train", {"alpha": 0.6, "linewidth": 1}), ("validation", {"marker": ".", "linewidth": 1.5})):
            rows = [line for line in splits[split] if name in line]
            axes.plot([float(r["step"]) for r in rows], [float(r[name]) for r in rows], label=split, **style)
        axes.set(xlabel="step", ylabel=name)
        axes.grid(alpha=0.3)
        axes.legend()
    if any(line.get("loss", 0) > 0 for line in lines):
        picture.axes[0].set_yscale("log")
    return png(picture)


def _confusion(path: Path) -> bytes:
    """confusion.png: how often each true class of the test split was taken for each class."""
    names, counts = _read_confusion(path / "confusion.csv")
    size = max(4.5, 0.4 * len(names)) if len(names) <= NAMED else 12
    picture = figure(size, size)
    axes = picture.subplots()
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if len(names) <= NAMED:
        shown = labels.written(names)
        style = {"parse_math": False, "fontfamily": shown.families}  # $ is a letter like any other
        axes.set_xticks(range(len(names)), shown.texts, rotation=90 if shown.columns > 2 else 0, **style)
        axes.set_yticks(range(len(names)), shown.texts, **style)
        for i, j in np.argwhere(counts):
            color = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, str(counts[i, j]), ha="center", va="center", color=color, fontsize=8)
    return png(picture)


def _read_confusion(path: Path) -> tuple[list[str], np.ndarray]:
    """The classes' names, and the counts `[classes, classes]`. Raises StorageError where the file is damaged."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            (_, *names), *rows = csv.reader(file)
        if not names or [row[0] for row in rows] != names or any(len(row) != len(names) + 1 for row in rows):
            raise ValueError("it has not a row and a column for each class")
        if not all(cell.isascii() and cell.isdigit() and len(cell) < 19 for row in rows for cell in row[1:]):
            raise ValueError("it holds something else than counts")
        return names, np.array([row[1:] for row in rows], np.int64)
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise StorageError(f"{path}: cannot be read: {error}") from error


def _colours(count: int, strength: float = 1.0) -> Any:
    from matplotlib.colors import ListedColormap

    shades = np.array([(0.12, 0.47, 0.71), (1.0, 0.5, 0.05), (0.17, 0.63, 0.17), (0.84, 0.15, 0.16), (0.58, 0.4, 0.74)])
    return ListedColormap([1 - strength * (1 - shades[i % len(shades)]) for i in range(count)])
