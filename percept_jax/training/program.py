"""All that is fixed when a step is compiled."""

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
from percept_jax.experiment import KNOBS, Experiment
from percept_jax.tasks import task_of
from percept_jax.tasks.base import Outputs, Spec, Task
from percept_jax.tasks.losses import Objective
from percept_jax.training.optim import SCHEDULES, learning_rate, make_optimizer


class Program(NamedTuple):
    """All that is fixed when a step is compiled.

    Attributes:
        module: the model.
        task: what is asked of it.
        outputs: what it writes for an example.
        input: the name of the feature that it sees.
        objective: loss of each position, and probabilities.
        optimizer: (learning rate, hparams) to an optax transformation.
        learning_rate: (step, hparams) to a learning rate.
        ema_decay: share of the weights' running mean that a step keeps; 0: there is none.
        dtype: arithmetic of the forward and backward pass.
        augmentation: what is done to the training images.
        crop: pixels a side of what the model sees of larger images; 0: all of them.
        freeze: patterns of the parameters that stay, and the running statistics beside them.
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
    crop: int
    freeze: str

    @property
    def param_dtype(self) -> jnp.dtype:
        """What parameters and losses are kept in: float32, also under bfloat16 arithmetic, or float64."""
        return jnp.dtype("float64" if self.dtype == jnp.float64 else "float32")


def make_program(experiment: Experiment, spec: Spec, axis_name: str | None = None) -> Program:
    """Returns the program of an experiment on a data set, for batches that are split over `axis_name`, if they are."""
    task = task_of(spec)
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


def _crop(experiment: Experiment) -> int:
    seen = experiment.image_size or models.wanted_image_size(experiment.model, experiment.knobs)
    return seen if experiment.stored_size else 0


def program_key(experiment: Experiment, steps: int) -> str:
    """Returns 12 hexadecimal digits that trials have in common if, and only if, they can be stepped together.

    They cover all that is compiled and all that paces the loop: every value that is not traced, except the run directory.

    Args:
        experiment: the experiment of a trial.
        steps: the number of its steps.
    """
    fixed = {name: getattr(experiment, name) for name, knob in KNOBS.items() if knob.role != "traced" and name != "run_dir"}
    text = json.dumps([fixed, sorted(experiment.knobs.items()), steps], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
