"""Draws training images with their augmented versions."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from percept_jax.data import preprocess, registry
from percept_jax.errors import UsageError
from percept_jax.experiment import Experiment
from percept_jax.plots.arrays import draw_grid
from percept_jax.training import preflight
from percept_jax.training.batch import center_crop, training_batch
from percept_jax.training.program import make_program
from percept_jax.training.run_dir import data_path, run_path

# The number of images, and of augmented versions of each.
ROWS, DRAWS = 8, 9


def draw(experiment: Experiment, name: str) -> Path:
    """Draws the first training images as they are and as the training step augments them.

    Writes runs/<name>/augmentations.png and returns its path. Raises UsageError if the data set has no images, or if no
    augmentation is on.
    """
    # Nothing is trained, but the experiment is valid only with a length.
    steps = experiment.steps or not experiment.epochs
    experiment = dataclasses.replace(
        experiment, dataset=registry.located(experiment.dataset, data_path(experiment.data_dir)), steps=int(steps)
    )
    experiment.validate()
    name = name or preflight.default_name(experiment)
    path = run_path(dataclasses.replace(experiment, run_dir=""), name).parent / "augmentations.png"
    dataset = preflight.dataset_of(experiment, experiment.data_dir)
    if dataset.spec.kind != "images":
        raise UsageError(f"{experiment.dataset} has no images", "augmentations")
    program = make_program(experiment, dataset.spec)
    if not program.augmentation.changes and not program.augmentation.mixup and not program.crop:
        raise UsageError("no augmentation is on; choose one of those in --help, such as --rotation=15", "augmentations")
    data = preprocess.device_data(dataset, preprocess.fit(experiment.normalize, dataset), experiment.real_dtype)
    index = dataset.spec.roles["train"][:ROWS]
    draw = jax.jit(partial(training_batch, program=program))
    with jax.enable_x64(experiment.dtype == "float64"):
        keys = jax.random.split(jax.random.key(experiment.seed), DRAWS)
        made = [np.asarray(draw(key, index, data).inputs) / data.inv_std + data.mean for key in keys]
    columns = [
        np.asarray(center_crop(jnp.asarray(dataset.inputs[index]), program)),
        *(np.clip(images, 0, 255).astype(np.uint8) for images in made),
    ]
    draw_grid(path, np.stack(columns, 1))
    return path
