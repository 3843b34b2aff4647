"""Pictures that take more than the files in a run directory: a model's decision boundary, augmented training images."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import numpy as np

from percept_jax import api, plots
from percept_jax.data import preprocess, registry
from percept_jax.data.readers.toy import TOYS
from percept_jax.data.spec import Dataset
from percept_jax.errors import UsageError
from percept_jax.experiment import Experiment
from percept_jax.training import preflight
from percept_jax.training.batch import center_crop, training_batch
from percept_jax.training.program import make_program
from percept_jax.training.run_dir import data_path, run_path

ROWS, DRAWS, GRID = 8, 9, 300


def of_run(trained: api.Trained, data_dir: str, boundary: bool) -> list[Path]:
    """Draws the pictures of a run again; with `boundary`, boundary.png alone. Raises UsageError where there is none to draw."""
    if not boundary:
        return plots.draw(trained.path)
    if trained.preprocessing.kind != "points":
        raise UsageError(f"{trained.experiment.dataset} has no points: a boundary is drawn of those in the plane", "boundary")
    dataset = _dataset(trained.experiment, data_dir)
    points = dataset.inputs.reshape(len(dataset.inputs), -1)
    low, high = points.min(0), points.max(0)
    margin = 0.15 * np.where(high > low, high - low, 1)
    x, y = (np.linspace(a, b, GRID) for a, b in zip(low - margin, high + margin, strict=True))
    plane = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    path = trained.path / "boundary.png"
    labels = trained.predict(plane).labels.reshape(GRID, GRID)
    shown = {role: dataset.spec.index[role] for role in ("train", "test")}
    parts = {role: (points[index], dataset.examples["label"][index]) for role, index in shown.items()}
    plots.boundary(path, x, y, labels, parts, TOYS[trained.experiment.dataset].features, trained.preprocessing.classes)
    return [path]


def augmentations(experiment: Experiment, name: str) -> Path:
    """Draws the first training images, and what the training step makes of them, into runs/<name>/augmentations.png."""
    steps = experiment.steps or not experiment.epochs  # the length of a run that there is not
    experiment = dataclasses.replace(
        experiment, dataset=registry.located(experiment.dataset, data_path(experiment.data_dir)), steps=int(steps)
    )
    experiment.validate()
    name = name or preflight.default_name(experiment)
    path = run_path(dataclasses.replace(experiment, run_dir=""), name).parent / "augmentations.png"
    dataset = _dataset(experiment, experiment.data_dir)
    if dataset.spec.kind != "images":
        raise UsageError(f"{experiment.dataset} has no images", "augmentations")
    program = make_program(experiment, dataset.spec)
    if not any(program.augmentation) and not program.mixup and not program.crop:
        raise UsageError("there is none: see --help, such as --rotation=15", "augmentations")
    data = preprocess.device_data(dataset, preprocess.fit(experiment.normalize, dataset), experiment.real_dtype)
    index = dataset.spec.index["train"][:ROWS]
    draw = jax.jit(partial(training_batch, program=program))
    with jax.enable_x64(experiment.dtype == "float64"):
        keys = jax.random.split(jax.random.key(experiment.seed), DRAWS)
        made = [np.asarray(draw(key, index, data).inputs) / data.inv_std + data.mean for key in keys]
    columns = [center_crop(dataset.inputs[index], program), *(np.clip(images, 0, 255).astype(np.uint8) for images in made)]
    plots.grid(path, np.stack(columns, 1))
    return path


def _dataset(experiment: Experiment, data_dir: str) -> Dataset:
    folder = data_path(data_dir)
    spec = preflight.describe_data(experiment, folder)
    size = preflight.image_size(experiment, spec)
    return preflight.load_data(experiment, folder, spec, preflight.stored_size(experiment, size))
