"""Checks whether a model can take the images of a data set, and whether one from outside of this package is a model at all."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from percept_jax import models
from percept_jax.data.spec import pixels
from percept_jax.errors import UsageError, first_line
from percept_jax.tasks.base import Outputs


def check_foreign(name: str, values: Mapping[str, Any], shape: tuple[int, ...], outputs: Outputs) -> None:
    """Raises UsageError unless a model from outside of this package maps two examples to their outputs, also in training."""
    module, images = models.build(name, **outputs._asdict(), **values), jnp.zeros((2, *shape))
    options: dict[str, Any] = {"dropout_rate": 0.5} if models.has_dropout(module) else {}

    def both(key: jax.Array) -> Any:
        variables = module.init(key, images)
        collections = ["batch_stats", "auxiliary"]
        trained, _ = module.apply(variables, images, train=True, rngs={"dropout": key}, mutable=collections, **options)
        return module.apply(variables, images, train=False), trained, variables

    try:
        *results, variables = jax.eval_shape(both, jax.random.key(0))
    except Exception as error:
        raise UsageError(
            f"{name} fails for images {list(shape)}: {type(error).__name__}: {first_line(error)}", "model"
        ) from error
    expected = (2, outputs.num_classes)
    for found in (getattr(result, "shape", None) for result in results):
        if found != expected:
            raise UsageError(f"{name} maps 2 examples to {list(found) if found else 'no array'}, not {list(expected)}", "model")
    if set(variables) not in ({"params"}, {"params", "batch_stats"}):
        raise UsageError(
            f"{name} has the variables {', '.join(sorted(variables)) or 'none'}, not params and batch_stats", "model"
        )


def check_fits(name: str, values: Mapping[str, Any], image_shape: tuple[int, ...], num_classes: int) -> None:
    """Raises UsageError if a model that was made for another image size cannot take `image_shape`."""
    model_size = models.wanted_image_size(name, values)
    size = image_shape[0], image_shape[1]
    if not values and (size == (model_size, model_size) or not model_size):
        # An error here is a bug in the model's code, and its own traceback is more helpful than a message.
        return
    module = models.build(name, num_classes=num_classes, **values)
    try:
        shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *image_shape)))
        # A leaf without elements means that a feature map has shrunk to nothing.
        fits = all(leaf.size for leaf in jax.tree.leaves(shapes))
    except Exception:
        fits = False
    if not fits:
        hint = f"it takes {model_size}" if size != (model_size, model_size) else "at least not with these settings of the model"
        raise UsageError(f"{name} cannot take images of {pixels(size)}; {hint}", "image_size")
