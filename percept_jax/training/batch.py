"""Prepares batches: gathers the examples, augments and mixes them for training, and normalizes them."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from percept_jax.data.augment import augment
from percept_jax.data.feed import Data
from percept_jax.data.geometry import marks_of
from percept_jax.data.mixup import mixup_share, mixup_shift
from percept_jax.data.spec import Size
from percept_jax.tasks.base import Batch, Scale
from percept_jax.training.program import Program


def training_batch(key: Array, index: Array, data: Data, *, program: Program, axis_name: str | None = None) -> Batch:
    """Returns the examples `index [batch]`, augmented and normalized.

    The random draws of an example depend on its position in the global batch, not on the number of devices.
    """
    first = jax.lax.axis_index(axis_name) * len(index) if axis_name else 0
    positions = first + jnp.arange(len(index), dtype=jnp.int32)
    augment_key, share_key, shift_key = jax.random.split(key, 3)

    def examples(index: Array, positions: Array) -> tuple[Array, Array, dict[str, Array]]:
        features = _gather(data, index)
        if program.augmentation.changes or program.crop:
            keys = jax.vmap(jax.random.fold_in, (None, 0))(augment_key, positions)
            change = functools.partial(augment, strengths=program.augmentation, size=program.crop)
            pixels = {**features, "image": features["image"].astype(data.mean.dtype) / 255}
            features = jax.vmap(change, (0, 0, None, None))(keys, pixels, data.components, data.mean / 255)
            features["image"] = 255 * features["image"]
        return features[program.input], _targets(data, features, program), features

    inputs, targets, features = examples(index, positions)
    if program.augmentation.mixup:
        whole = jax.lax.all_gather(index, axis_name, tiled=True) if axis_name else index
        partners = (positions + mixup_shift(shift_key, len(whole))) % len(whole)
        # The partner gets the same augmentation as at its own position, on whichever device that is.
        others = examples(whole[partners], partners)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(share_key, positions)
        share = jax.vmap(mixup_share, (0, None))(keys, program.augmentation.mixup).astype(data.mean.dtype)
        part = share[:, None, None, None]
        inputs = part * inputs.astype(share.dtype) + (1 - part) * others[0].astype(share.dtype)
        targets = share[:, None] * targets + (1 - share[:, None]) * others[1]
    return _batch(inputs, targets, data, features, program)


def evaluation_batch(index: Array, data: Data, *, program: Program) -> Batch:
    """Returns the examples `index [batch]`, normalized."""
    features = _gather(data, index)
    if program.crop:
        features = jax.vmap(functools.partial(_cropped, program=program))(features)
    return _batch(features[program.input], _targets(data, features, program), data, features, program)


def _gather(data: Data, index: Array) -> dict[str, Array]:
    return {name: column[index] for name, column in data.features.items()}


def _cropped(example: Mapping[str, Array], program: Program) -> dict[str, Array]:
    """Returns the center crop of an example: of its image, its boxes and its mask."""
    assert program.crop
    top, left = _corner(example["image"].shape[:2], program.crop)
    marks = marks_of(example).crop(top, left, program.crop)
    return {**example, **marks.features(), "image": center_crop(example["image"][None], program)[0]}


def center_crop(inputs: Array, program: Program) -> Array:
    """Returns the center crop of images if the model is given crops; returns other inputs unchanged."""
    if not program.crop:
        return inputs
    (top, left), (height, width) = _corner(inputs.shape[1:3], program.crop), program.crop
    return inputs[:, top : top + height, left : left + width]


def _corner(stored: tuple[int, ...], crop: Size) -> Size:
    return (stored[0] - crop[0]) // 2, (stored[1] - crop[1]) // 2


def normalize(inputs: Array, mean: Array, inv_std: Array, program: Program) -> Array:
    """Returns inputs, as stored in `Dataset`, normalized for the model; tokens are returned unchanged."""
    if program.outputs.vocabulary:
        return inputs
    mean, inv_std = (jnp.expand_dims(channels, range(inputs.ndim - 1)) for channels in (mean, inv_std))
    return ((inputs.astype(mean.dtype) - mean) * inv_std).astype(program.dtype)


def _targets(data: Data, features: Mapping[str, Array], program: Program) -> Array:
    """Returns the targets of the loss for examples with these features."""
    return program.task.targets(features, program.outputs, Scale(data.target_mean, data.target_inv_std), program.param_dtype)


def _batch(inputs: Array, targets: Array, data: Data, features: Mapping[str, Array], program: Program) -> Batch:
    """Normalizes the inputs and returns them as a batch, with the features of their examples and the mask."""
    return Batch(
        inputs=normalize(inputs, data.mean, data.inv_std, program),
        targets=targets,
        features={name: column for name, column in features.items() if name != program.input},
        scale=Scale(data.target_mean, data.target_inv_std),
        lengths=features.get("length"),
        mask=program.task.mask(features) if program.task.mask else None,
    )
