"""Draws the decision boundary of a model of points in the plane."""

from pathlib import Path

import numpy as np

from percept_jax import api
from percept_jax.data.readers.toy import TOYS
from percept_jax.errors import UsageError
from percept_jax.plots.arrays import draw_boundary
from percept_jax.training import preflight

# The model is evaluated on a grid of this many positions a side.
GRID = 300


def draw(trained: api.Trained, data_dir: str) -> Path:
    """Draws boundary.png into the run directory. Returns its path. Raises UsageError unless the model's inputs are points."""
    if trained.preprocessing.kind != "points":
        raise UsageError(f"{trained.experiment.dataset} has no points in the plane, so it has no boundary to draw", "boundary")
    if trained.preprocessing.shape[-1] != 2:
        raise UsageError(
            f"the points of {trained.experiment.dataset} do not have two coordinates, so they are not in a plane", "boundary"
        )
    dataset = preflight.dataset_of(trained.experiment, data_dir)
    points = dataset.inputs.reshape(len(dataset.inputs), -1)
    low, high = points.min(0), points.max(0)
    margin = 0.15 * np.where(high > low, high - low, 1)
    x, y = (np.linspace(a, b, GRID) for a, b in zip(low - margin, high + margin, strict=True))
    plane = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    path = trained.path / "boundary.png"
    labels = trained.predict(plane).labels.reshape(GRID, GRID)
    shown = {role: dataset.spec.roles[role] for role in ("train", "test")}
    parts = {role: (points[index], dataset.examples["label"][index]) for role, index in shown.items()}
    toy = TOYS.get(trained.experiment.dataset)
    draw_boundary(path, x, y, labels, parts, toy.features if toy else ("x", "y"), trained.preprocessing.classes)
    return path
