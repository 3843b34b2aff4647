"""The program of an experiment: everything that is fixed when its step is compiled."""

import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import optax
from jax import Array

from percept_jax import knobs, models
from percept_jax.data.augment import AugmentationConfig
from percept_jax.data.spec import Size, size_of
from percept_jax.experiment import KNOBS, Experiment
from percept_jax.tasks import task_of
from percept_jax.tasks.base import Outputs, Spec, Task
from percept_jax.tasks.losses import Objective
from percept_jax.training.optim import SCHEDULES, learning_rate, make_optimizer


class Program(NamedTuple):
    """Everything that is fixed when a step is compiled.

    Attributes:
        module: the model.
        task: the task.
        outputs: the sizes of the model's output for an example.
        input: the name of the feature that the model takes.
        objective: the loss of each position, and the probabilities.
        optimizer: maps (learning rate, hparams) to an optax transformation.
        learning_rate: maps (step, hparams) to a learning rate.
        ema_decay: the decay of the running mean of the weights; 0: there is none.
        dtype: the dtype of the forward and backward pass.
        augmentation: the settings of the augmentation of training images.
        crop: pixels a side of the crop that the model is given; 0: the whole image.
        freeze: patterns of the parameters that are not trained; their running statistics are frozen too.
    """

    module: nn.Module
    task: Task
    outputs: Outputs
    input: str
    objective: Objective
    optimizer: Callable[[Array, Any], optax.GradientTransformation]
    learning_rate: Callable[[Array, Any], Array]
    ema_decay: float
    dtype: jnp.dtype
    augmentation: AugmentationConfig
    crop: Size | None
    freeze: str

    @property
    def param_dtype(self) -> jnp.dtype:
        """The dtype of parameters and losses: float64 if that is `dtype`, else float32, also with bfloat16 arithmetic."""
        return jnp.dtype("float64" if self.dtype == jnp.float64 else "float32")


def make_program(experiment: Experiment, spec: Spec, axis_name: str | None = None, task_name: str = "") -> Program:
    """Returns the program of an experiment on a data set.

    Batches may be split over the mapped axis `axis_name`. A `task_name` replaces that of the experiment, which may be "auto".
    """
    task = task_of(spec, task_name or experiment.task)
    outputs = task.outputs(spec)
    return Program(
        module=models.build(experiment.model, **outputs._asdict(), axis_name=axis_name, **experiment.knobs),
        task=task,
        outputs=outputs,
        input=spec.input,
        objective=task.objective(experiment.loss),
        optimizer=functools.partial(make_optimizer, experiment.optimizer, freeze=experiment.freeze, lr_scale=experiment.lr_scale),
        learning_rate=functools.partial(learning_rate, SCHEDULES[experiment.schedule], experiment.decay_at),
        ema_decay=experiment.ema_decay,
        dtype=jnp.dtype(experiment.dtype),
        augmentation=knobs.part(AugmentationConfig, experiment),
        crop=_crop(experiment),
        freeze=experiment.freeze,
    )


def _crop(experiment: Experiment) -> Size | None:
    own = models.wanted_image_size(experiment.model, experiment.knobs)
    size = size_of(experiment.image_size, "image_size") or (own, own)
    return size if experiment.stored_size else None


def program_key(experiment: Experiment, steps: int) -> str:
    """Returns 12 hexadecimal digits that two trials share if, and only if, they can be stepped together.

    They are a digest of everything that is compiled and of the loop's intervals: all fields that are not traced, except the run
    directory.

    Args:
        experiment: the experiment of a trial.
        steps: the number of its steps.
    """
    fixed = {name: getattr(experiment, name) for name, knob in KNOBS.items() if knob.role != "traced" and name != "run_dir"}
    text = json.dumps([fixed, sorted(experiment.knobs.items()), steps], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
