"""What a step is given: the data set on the device, and the examples of a batch as a model sees them."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from percept_jax.data.augment import augment, mixup_share, mixup_shift
from percept_jax.tasks.base import Batch, Scale
from percept_jax.training.program import Program


class Data(NamedTuple):
    """A data set on the device, all splits in one.

    Attributes:
        inputs, targets, lengths: as in `Dataset`.
        mean, scale: `[channels]`; a model sees `(image - mean) * scale`; empty for tokens.
        components: `[channels, channels]`, the principal components of the training pixels, for --pca_color.
        target_mean, target_scale: `[features]`, the same for targets that are values; else empty.
    """

    inputs: Array
    targets: Array
    lengths: Array | None
    mean: Array
    scale: Array
    components: Array
    target_mean: Array
    target_scale: Array


def training_batch(key: Array, index: Array, data: Data, *, program: Program, axis_name: str | None = None) -> Batch:
    """The examples `index [batch]`, augmented and normalised.

    Each example's draws come from its position in the global batch, so they do not depend on the number of devices.
    """
    first = jax.lax.axis_index(axis_name) * len(index) if axis_name else 0
    positions = first + jnp.arange(len(index))
    augment_key, share_key, shift_key = jax.random.split(key, 3)

    def examples(index: Array, positions: Array) -> tuple[Array, Array]:
        inputs = data.inputs[index]
        if any(program.augmentation) or program.crop:
            keys = jax.vmap(jax.random.fold_in, (None, 0))(augment_key, positions)
            change = functools.partial(augment, strengths=program.augmentation, size=program.crop)
            pixels = inputs.astype(data.mean.dtype) / 255
            inputs = 255 * jax.vmap(change, (0, 0, None, None))(keys, pixels, data.components, data.mean / 255)
        return inputs, _targets(data, index, program)

    inputs, targets = examples(index, positions)
    if program.mixup:
        whole = jax.lax.all_gather(index, axis_name, tiled=True) if axis_name else index
        partners = (positions + mixup_shift(shift_key, len(whole))) % len(whole)
        others = examples(whole[partners], partners)  # as they are seen themselves, on whichever device
        keys = jax.vmap(jax.random.fold_in, (None, 0))(share_key, positions)
        share = jax.vmap(mixup_share, (0, None))(keys, program.mixup).astype(data.mean.dtype)
        inputs = share[:, None, None, None] * inputs + (1 - share[:, None, None, None]) * others[0]
        targets = share[:, None] * targets + (1 - share[:, None]) * others[1]
    return _batch(inputs, targets, data, index, program)


def evaluation_batch(index: Array, data: Data, *, program: Program) -> Batch:
    """The examples `index [batch]`, normalised."""
    return _batch(middle(data.inputs[index], program), _targets(data, index, program), data, index, program)


def middle(inputs: Array, program: Program) -> Array:
    """The middle of images that the model sees a crop of."""
    first = (inputs.shape[1] - program.crop) // 2
    return inputs[:, first : first + program.crop, first : first + program.crop] if program.crop else inputs


def normalize(inputs: Array, mean: Array, scale: Array, program: Program) -> Array:
    """What a model sees of inputs as in `Dataset`: tokens as they are."""
    if program.outputs.vocabulary:
        return inputs
    return ((inputs.astype(mean.dtype) - mean) * scale).astype(program.dtype)


def _targets(data: Data, index: Array, program: Program) -> Array:
    """What the loss compares a model's outputs with, for the examples `index`."""
    scale = Scale(data.target_mean, data.target_scale)
    return program.task.targets(data.targets[index], program.outputs, scale, program.wide)


def _batch(inputs: Array, targets: Array, data: Data, index: Array, program: Program) -> Batch:
    """A batch of inputs that are still to be normalized, with the lengths and the mask of the examples `index`."""
    truth = data.targets[index]
    return Batch(
        inputs=normalize(inputs, data.mean, data.scale, program),
        targets=targets,
        truth=truth,
        scale=Scale(data.target_mean, data.target_scale),
        lengths=None if data.lengths is None else data.lengths[index],
        mask=program.task.mask(truth) if program.task.mask else None,
    )
