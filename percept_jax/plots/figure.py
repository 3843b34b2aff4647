"""Makes matplotlib figures and PNG files of them. Matplotlib takes a second to import, so it is imported late."""

import io
from typing import Any

import numpy as np


def new_figure(width: float, height: float) -> Any:
    """Returns an empty figure of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def png(figure: Any, dpi: int = 100) -> bytes:
    """Returns a figure as the bytes of a PNG file. The same figure gives the same bytes."""
    content = io.BytesIO()
    figure.savefig(content, dpi=dpi, format="png", metadata={"Software": None})
    return content.getvalue()


def class_colors(count: int, strength: float = 1.0) -> Any:
    """Returns a color map with a color for each of `count` classes; a `strength` below 1 mixes them with white."""
    from matplotlib.colors import ListedColormap

    shades = np.array([(0.12, 0.47, 0.71), (1.0, 0.5, 0.05), (0.17, 0.63, 0.17), (0.84, 0.15, 0.16), (0.58, 0.4, 0.74)])
    return ListedColormap([1 - strength * (1 - shades[i % len(shades)]) for i in range(count)])
