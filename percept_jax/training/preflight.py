"""Checks whether an experiment can run: model against data set, sizes, weights. Nothing is written before these checks."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from percept_jax import knobs, models
from percept_jax.data import registry
from percept_jax.data.augment import AugmentationConfig
from percept_jax.data.readers.base import ReaderConfig
from percept_jax.data.spec import Dataset, DatasetSpec, Size, pixels, size_of
from percept_jax.errors import UsageError
from percept_jax.experiment import Experiment, stack_hparams
from percept_jax.models.recurrent import EncoderDecoder
from percept_jax.tasks import task_of
from percept_jax.training import extension, init_from
from percept_jax.training.model_check import check_fits, check_foreign
from percept_jax.training.optim import check_patterns
from percept_jax.training.program import make_program
from percept_jax.training.run_dir import data_path
from percept_jax.training.source import is_foreign
from percept_jax.training.step import init_state


class Preflight(NamedTuple):
    """An experiment that has passed the checks.

    Attributes:
        experiment: the experiment.
        spec: the description of its data set.
        shape: the shape of one input of its model.
        stored_size: height and width of the stored images; (0, 0) for sequences.
        notes: warnings for the user, one line each.
    """

    experiment: Experiment
    spec: DatasetSpec
    shape: tuple[int, ...]
    stored_size: Size
    notes: tuple[str, ...] = ()

    @property
    def data_key(self) -> str:
        """A key that experiments share if they need the same examples in the same form."""
        e = self.experiment
        return repr((e.dataset, e.train_split, e.validation_split, e.test_split, e.data_dir, self.stored_size, reader_config(e)))

    def load(self, note: Callable[[str], None]) -> Dataset:
        """Returns the examples; calls `note` with what is prepared first or skipped. Raises as `registry.load` does."""
        folder = data_path(self.experiment.data_dir)
        if not registry.is_prepared(self.experiment.dataset, folder):
            note(f"preparing {self.experiment.dataset} in {folder}")
        return load_data(self.experiment, folder, self.spec, self.stored_size, note)


def check(experiment: Experiment, spec: DatasetSpec | None = None, begun: bool = False) -> Preflight:
    """Checks an experiment that is valid in itself and located against its data set, its model and its weights.

    Args:
        experiment: the experiment.
        spec: the description of its data set; None: the one from `describe_data`.
        begun: the run has a checkpoint, so its initial weights no longer matter.

    Raises:
        UsageError: the experiment cannot run; the message names the flag.
    """
    spec = spec or describe_data(experiment, data_path(experiment.data_dir))
    size = image_size(experiment, spec)
    shape = model_shape(experiment, spec, size)
    stored = stored_size(experiment, size)
    examples = len(spec.roles["train"])
    steps = experiment.total_steps(examples)
    if not begun and experiment.extend:
        extension.find(experiment, steps, experiment.validation_steps(examples))
    elif not begun:
        check_weights(experiment, spec, shape)
    unread = [f"{name} of {experiment.dataset} is not read without --mask_classes" for name in spec.unread]
    return Preflight(experiment, spec, shape, stored, (*unread, *notes_of(experiment, examples, steps)))


def notes_of(experiment: Experiment, examples: int, steps: int) -> Iterator[str]:
    """Yields warnings about settings that may not do what the user meant."""
    yield from experiment.idle()
    if experiment.batch(examples) > examples:
        yield f"--batch_size={experiment.batch_size} is more than the {examples} training examples, so a step repeats some"
    if experiment.warmup_steps > steps:
        yield f"--warmup_steps={experiment.warmup_steps} is more than the {steps} steps, so the learning rate rises to the end"
    if experiment.eval_every > steps:
        yield f"--eval_every={experiment.eval_every} is more than the {steps} steps, so the run validates once, at its end"


def absolute(experiment: Experiment, folder: Path) -> Experiment:
    """Returns the experiment with absolute paths of its data and weights, whether or not they exist."""
    start = init_from.absolute(experiment.init_from) if experiment.init_from else ""
    return dataclasses.replace(experiment, dataset=registry.located(experiment.dataset, folder), init_from=start)


def located(experiment: Experiment, folder: Path) -> Experiment:
    """Returns `absolute(...)` with checksums after the paths, so that it means the same data and weights everywhere.

    Raises UsageError if they do not exist, or differ from a checksum that was given.
    """
    experiment = absolute(experiment, folder)
    start = init_from.located(experiment.init_from) if experiment.init_from else ""
    dataset = registry.identified(experiment.dataset, folder, experiment.fresh_cache)
    return dataclasses.replace(experiment, dataset=dataset, init_from=start)


def check_weights(experiment: Experiment, spec: DatasetSpec, shape: tuple[int, ...]) -> None:
    """Raises UsageError if --init_from does not fit the model, or if --freeze or --lr_scale match none of its parameters."""
    if not (experiment.init_from or experiment.freeze or experiment.lr_scale):
        return
    program = make_program(dataclasses.replace(experiment, freeze="", lr_scale=""), spec)
    hparams = jax.tree.map(lambda column: column[0], stack_hparams([experiment], 1))
    with jax.enable_x64(experiment.dtype == "float64"):
        state = jax.eval_shape(partial(init_state, shape=shape, program=program), hparams)
    check_patterns(state.params, experiment.freeze, experiment.lr_scale)
    if experiment.init_from:
        init_from.start(
            experiment.init_from, {"params": state.params, "batch_stats": state.batch_stats}, program.outputs.num_classes
        )


def describe_data(experiment: Experiment, folder: Path, absent_too: bool = False) -> DatasetSpec:
    """Returns the description of an experiment's data set, with its splits. Raises as `registry.describe` does."""
    return select(experiment, registry.describe(experiment.dataset, folder, absent_too, reader_config(experiment)))


def load_data(
    experiment: Experiment, folder: Path, spec: DatasetSpec, image_size: Size, note: Callable[[str], None] | None = None
) -> Dataset:
    """Returns the examples of an experiment's data set; calls `note` with what is skipped. Raises as `registry.load` does."""
    return registry.load(experiment.dataset, folder, spec, image_size, reader_config(experiment), note)


def dataset_of(experiment: Experiment, data_dir: str) -> Dataset:
    """Returns the examples of an experiment's data set, at the size that it stores. Raises as `load_data` does."""
    folder = data_path(data_dir)
    spec = describe_data(experiment, folder)
    return load_data(experiment, folder, spec, stored_size(experiment, image_size(experiment, spec)))


def reader_config(experiment: Experiment) -> ReaderConfig:
    """Returns the settings with which an experiment's data are read."""
    return knobs.part(ReaderConfig, experiment)


def select(experiment: Experiment, spec: DatasetSpec) -> DatasetSpec:
    """Returns the data set with the splits on which an experiment trains, validates and tests."""
    return spec.select(experiment.train_split, experiment.validation_split, experiment.test_split)


def default_name(experiment: Experiment) -> str:
    """Returns the name of the folder under runs/ for an experiment without a flag file."""
    return f"{registry.short_name(experiment.dataset)}_{experiment.model}"


def image_size(experiment: Experiment, spec: DatasetSpec) -> Size:
    """Returns the height and width of a model's images: --image_size, else the model's own size, else the data set's.

    Returns (1, 1) for points and (0, 0) for sequences. Raises UsageError if no size is known, or if a flag or the model does not
    fit the kind of data.
    """
    model_size = models.wanted_image_size(experiment.model, experiment.knobs)
    _check_task(experiment, spec)
    if spec.kind == "images":
        _check_colors(experiment, spec)
        own = model_size or max(spec.shape[:2])
        size = size_of(experiment.image_size, "image_size") or (own, own)
        if not all(size):
            raise UsageError(f"{experiment.dataset} has images of several sizes: set the size to resize them to", "image_size")
        for flag in ("random_crop", "cutout"):
            if getattr(experiment, flag) > min(size):
                raise UsageError(f"{getattr(experiment, flag)} pixels are more than the {pixels(size)} of the image", flag)
        return size
    kind = "points" if spec.kind == "points" else "sequences"
    for flag in ("image_size", "stored_size", *knobs.names(AugmentationConfig)):
        if getattr(experiment, flag):
            raise UsageError(f"{experiment.dataset} has {kind}, not images", flag)
    if experiment.normalize in ("unit", "imagenet"):
        raise UsageError(f"{kind} do not have values from 0 to 255; choose standard or none", "normalize")
    if kind == "sequences" and not models.takes_sequences(models.module_class(experiment.model)):
        raise UsageError(f"{experiment.model} takes images, {experiment.dataset} has sequences; choose lstm or gru", "model")
    if kind == "points" and model_size:
        raise UsageError(f"{experiment.model} takes images, {experiment.dataset} has points; choose linear or mlp", "model")
    return (1, 1) if kind == "points" else (0, 0)


def _check_task(experiment: Experiment, spec: DatasetSpec) -> None:
    """Raises UsageError if a flag does not fit the data set's targets or sequences."""
    task = task_of(spec, experiment.task)
    task.objective(experiment.loss)
    if experiment.label_smoothing and not task.distributions:
        raise UsageError(f"{experiment.dataset} has no labels", "label_smoothing")
    if experiment.mixup and not task.distributions:
        raise UsageError(f"the targets of {task.name} cannot be mixed", "mixup")
    if experiment.sequence_length != Experiment.sequence_length and spec.kind != "text":
        raise UsageError(f"{experiment.dataset} is not a text", "sequence_length")
    for flag in ("ahead", "horizon"):
        if getattr(experiment, flag) and spec.kind != "values":
            raise UsageError(f"{experiment.dataset} has no series of values to forecast", flag)


def _check_colors(experiment: Experiment, spec: DatasetSpec) -> None:
    """Raises UsageError if a flag changes colors that the images do not have."""
    channels = spec.shape[-1]
    refused = {1: ("saturation", "pca_color"), 3: ()}.get(channels, ("contrast", "saturation"))
    refused = [flag for flag in refused if getattr(experiment, flag)]
    if channels != 3 and experiment.normalize == "imagenet":
        refused.append("normalize")
    if refused:
        raise UsageError(f"{experiment.dataset} has {channels} channels, not red, green and blue", refused[0])


def stored_size(experiment: Experiment, size: Size) -> Size:
    """Returns the height and width of the stored images. Raises UsageError if they are smaller than the model's `size`."""
    if experiment.stored_size and not (experiment.image_size or models.wanted_image_size(experiment.model, experiment.knobs)):
        raise UsageError(f"{experiment.model} takes images of any size: give the crops' size as --image_size", "stored_size")
    stored = size_of(experiment.stored_size, "stored_size") or size
    if stored[0] < size[0] or stored[1] < size[1]:
        raise UsageError(f"images of {pixels(stored)} cannot be cropped to {pixels(size)}", "stored_size")
    return stored


def model_shape(experiment: Experiment, spec: DatasetSpec, size: Size) -> tuple[int, ...]:
    """Returns the shape of one input of a model: an image resized to `size`, or a point or sequence of the data set.

    Raises UsageError if the model cannot take it, or if its outputs do not have the shape of the data set's targets.
    """
    shape = (*size, spec.shape[-1]) if spec.kind == "images" else spec.shape
    model, values = experiment.model, experiment.knobs
    outputs = task_of(spec, experiment.task).outputs(spec)
    if not models.takes_sequences(models.module_class(model)):
        check_fits(model, values, shape, outputs.num_classes)
        if is_foreign(models.MODELS[model]):
            check_foreign(model, values, shape, outputs)
        return shape
    causal = spec.kind in ("words", "text") or experiment.ahead
    reads_all_first = issubclass(models.module_class(model), EncoderDecoder)
    if (reads_all_first and causal) or (values.get("bidirectional") and (spec.kind == "text" or experiment.ahead)):
        if reads_all_first:
            raise UsageError(f"{model} reads a whole sequence before it predicts a step of it", "model")
        raise UsageError("the model would see the very steps that it is to predict", "bidirectional")
    module = models.build(model, **outputs._asdict(), **values)
    example = jnp.zeros((1, *shape), jnp.int32 if outputs.vocabulary else jnp.float32)
    actual = jax.eval_shape(module.init_with_output, jax.random.key(0), example)[0].shape[1:]
    expected = (*([outputs.output_steps] if outputs.output_steps else []), outputs.num_classes)
    if actual != expected:
        problem = f"{model} outputs {list(actual)} per example, but the targets of {experiment.dataset} are {list(expected)}"
        raise UsageError(f"{problem}; choose gru_seq2seq for a sequence after the input, gru or lstm otherwise", "model")
    return shape
