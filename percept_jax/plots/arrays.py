"""Draws arrays: a decision boundary in the plane, and a grid of images. Each file is written atomically."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from percept_jax import files
from percept_jax.plots import labels
from percept_jax.plots.figure import class_colors, new_figure, png


def draw_boundary(
    path: Path,
    x: np.ndarray,
    y: np.ndarray,
    predicted: np.ndarray,
    points: Mapping[str, tuple[np.ndarray, np.ndarray]],
    features: Sequence[str],
    classes: Sequence[str],
) -> None:
    """Draws the predicted class at each position of a plane, and labeled points on top of it.

    Args:
        path: the PNG file to write.
        x, y: the plane's coordinates, `[columns]` and `[rows]`.
        predicted: the class at each position, int `[rows, columns]`.
        points: by split, points `[points, 2]` and their labels `[points]`.
        features: the names of x and y.
        classes: a name for each label.
    """
    figure = new_figure(5.5, 5)
    axes = figure.subplots()
    axes.pcolormesh(x, y, predicted, cmap=class_colors(len(classes), 0.35), vmin=-0.5, vmax=len(classes) - 0.5, rasterized=True)
    names = labels.written(classes)
    for (split, (positions, truth)), marker in zip(points.items(), "o^", strict=True):
        for label, name in enumerate(names.texts):
            of_class = positions[truth == label]
            style = {"marker": marker, "s": 22, "edgecolors": "black", "linewidths": 0.5}
            text = f"{name} ({split})"
            # Matplotlib leaves a label that starts with "_" out of the legend.
            text = " " + text if text.startswith("_") else text
            axes.scatter(of_class[:, 0], of_class[:, 1], color=class_colors(len(classes))(label), label=text, **style)
    axes.set_xlabel(features[0], parse_math=False)
    axes.set_ylabel(features[1], parse_math=False)
    if len(classes) <= labels.MOST_NAMES // 4:
        for text in axes.legend(loc="upper right", prop={"family": names.families, "size": 7}).get_texts():
            text.set_parse_math(False)
    files.write_bytes(path, png(figure, 150))


def draw_grid(path: Path, images: np.ndarray) -> None:
    """Draws uint8 images `[rows, columns, height, width, 1 or 3]` in rows and columns; the first column is the originals."""
    rows, columns = images.shape[:2]
    figure = new_figure(columns * 0.9, rows * 0.9 + 0.3)
    cells = figure.subplots(rows, columns, squeeze=False).flat
    for axes, image in zip(cells, images.reshape(-1, *images.shape[2:]), strict=True):
        axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()
    figure.axes[0].set_title("original", fontsize=8)
    files.write_bytes(path, png(figure, 120))
