"""Whether an experiment can be run: the model against the data set, sizes, weights. Nothing is written before that is checked."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from percept_jax import knobs, models
from percept_jax.data import registry
from percept_jax.data.augment import AugmentationConfig
from percept_jax.data.readers.base import ReaderConfig
from percept_jax.data.spec import Dataset, DatasetSpec
from percept_jax.errors import UsageError
from percept_jax.experiment import Experiment, stack_hparams
from percept_jax.models.recurrent import EncoderDecoder
from percept_jax.tasks import task_of
from percept_jax.training import extension, init_from
from percept_jax.training.optim import check_patterns
from percept_jax.training.program import make_program
from percept_jax.training.run_dir import data_path
from percept_jax.training.step import init_state


class Preflight(NamedTuple):
    """An experiment that can be trained as far as one can tell.

    Attributes:
        experiment: what is to be run.
        spec: of its data set.
        shape: what its model sees.
        stored_size: pixels a side as images are stored.
        notes: what a person should know of it, a line each.
    """

    experiment: Experiment
    spec: DatasetSpec
    shape: tuple[int, ...]
    stored_size: int
    notes: tuple[str, ...] = ()

    @property
    def data_key(self) -> str:
        """The same for experiments that want the same examples in the same form."""
        e = self.experiment
        return repr((e.dataset, e.train_split, e.validation_split, e.test_split, e.data_dir, self.stored_size, reader_config(e)))

    def load(self, note: Callable[[str], None]) -> Dataset:
        """The examples; `note` is told what is prepared first, or passed over. Errors are those of `registry.load`."""
        folder = data_path(self.experiment.data_dir)
        if not registry.is_prepared(self.experiment.dataset, folder):
            note(f"preparing {self.experiment.dataset} in {folder}")
        return load_data(self.experiment, folder, self.spec, self.stored_size, note)


def check(experiment: Experiment, spec: DatasetSpec | None = None, begun: bool = False) -> Preflight:
    """Raises UsageError, naming the flag, for what is wrong with an experiment that is valid and located in itself.

    Args:
        experiment: what is to be run.
        spec: of its data set; None: as `describe_data` finds it.
        begun: its first weights do not matter any more.
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
    return Preflight(experiment, spec, shape, stored, tuple(notes_of(experiment, examples, steps)))


def notes_of(experiment: Experiment, examples: int, steps: int) -> Iterator[str]:
    """What will happen that may not be meant."""
    yield from experiment.idle()
    if experiment.batch(examples) > examples:
        yield f"--batch_size={experiment.batch_size} is more than the {examples} examples to train on; a step sees some twice"
    if experiment.warmup_steps > steps:
        yield f"--warmup_steps={experiment.warmup_steps} is beyond the {steps} steps; the rate rises to the end"
    if experiment.eval_every > steps:
        yield f"--eval_every={experiment.eval_every} is beyond the {steps} steps; the run validates once, at its end"


def absolute(experiment: Experiment, folder: Path) -> Experiment:
    """The experiment with the paths of its data and weights made absolute, whether they are there or not."""
    start = init_from.absolute(experiment.init_from) if experiment.init_from else ""
    return dataclasses.replace(experiment, dataset=registry.located(experiment.dataset, folder), init_from=start)


def located(experiment: Experiment, folder: Path) -> Experiment:
    """`absolute`, with checksums behind the paths: it means the same data and weights everywhere.

    Raises UsageError where they are not there, or are not those that a checksum means.
    """
    experiment = absolute(experiment, folder)
    start = init_from.located(experiment.init_from) if experiment.init_from else ""
    dataset = registry.identified(experiment.dataset, folder, experiment.fresh_cache)
    return dataclasses.replace(experiment, dataset=dataset, init_from=start)


def check_weights(experiment: Experiment, spec: DatasetSpec, shape: tuple[int, ...]) -> None:
    """Raises UsageError where --init_from does not fit the model, or where --freeze or --lr_scale name no parameter of it."""
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
    """An experiment's data set, with the examples to train, validate and test on. Errors are those of `registry.describe`."""
    return select(experiment, registry.describe(experiment.dataset, folder, absent_too, reader_config(experiment)))


def load_data(
    experiment: Experiment, folder: Path, spec: DatasetSpec, image_size: int, note: Callable[[str], None] | None = None
) -> Dataset:
    """The examples of an experiment's data set; `note` is told what was passed over. Errors are those of `registry.load`."""
    return registry.load(experiment.dataset, folder, spec, image_size, reader_config(experiment), note)


def dataset_of(experiment: Experiment, data_dir: str) -> Dataset:
    """Returns the examples of an experiment's data set, in the size in which it stores them. Raises as `load_data`."""
    folder = data_path(data_dir)
    spec = describe_data(experiment, folder)
    return load_data(experiment, folder, spec, stored_size(experiment, image_size(experiment, spec)))


def reader_config(experiment: Experiment) -> ReaderConfig:
    """Returns how the data of an experiment are read."""
    return knobs.part(ReaderConfig, experiment)


def select(experiment: Experiment, spec: DatasetSpec) -> DatasetSpec:
    """A data set with the examples that an experiment trains, validates and tests on."""
    return spec.select(experiment.train_split, experiment.validation_split, experiment.test_split)


def default_name(experiment: Experiment) -> str:
    """The folder under runs/ of an experiment that no flag file names."""
    return f"{registry.short_name(experiment.dataset)}_{experiment.model}"


def image_size(experiment: Experiment, spec: DatasetSpec) -> int:
    """Pixels a side that a model sees: --image_size, else what it was made for, else what the data set has; 0 for sequences.

    Raises UsageError where all three are silent, or where a flag or the model does not suit what the data set has.
    """
    wanted = models.wanted_image_size(experiment.model, experiment.knobs)
    _check_task(experiment, spec)
    if spec.kind == "images":
        _check_colors(experiment, spec)
        size = experiment.image_size or wanted or max(spec.shape[:2])
        if not size:
            raise UsageError(f"{experiment.dataset} has images of several sizes: give the one to resize them to", "image_size")
        for flag in ("random_crop", "cutout"):
            if getattr(experiment, flag) > size:
                raise UsageError(f"{getattr(experiment, flag)} pixels are more than the image has, which is {size} a side", flag)
        return size
    has = "points" if spec.kind == "points" else "sequences"
    for flag in ("image_size", "stored_size", *knobs.names(AugmentationConfig)):
        if getattr(experiment, flag):
            raise UsageError(f"{experiment.dataset} has {has}, not images", flag)
    if experiment.normalize in ("unit", "imagenet"):
        raise UsageError(f"{has} do not go from 0 to 255; choose standard or none", "normalize")
    if has == "sequences" and not models.takes_sequences(models.module_class(experiment.model)):
        raise UsageError(f"{experiment.model} takes images, {experiment.dataset} has sequences; take lstm or gru", "model")
    if has == "points" and wanted:
        raise UsageError(f"{experiment.model} takes images, {experiment.dataset} has points; take linear or mlp", "model")
    return int(has == "points")


def _check_task(experiment: Experiment, spec: DatasetSpec) -> None:
    """Raises UsageError where a flag asks for what the data set's targets or sequences are not."""
    task = task_of(spec)
    if experiment.loss not in task.objectives and task.name not in task.objectives:
        what = "classes" if spec.classes else "values"
        raise UsageError(f"{experiment.dataset} has {what}; take {' or '.join(task.objectives)}", "loss")
    if experiment.label_smoothing and not task.distributions:
        raise UsageError(f"{experiment.dataset} has no labels", "label_smoothing")
    if experiment.sequence_length != Experiment.sequence_length and spec.kind != "text":
        raise UsageError(f"{experiment.dataset} is no text", "sequence_length")
    for flag in ("ahead", "horizon"):
        if getattr(experiment, flag) and spec.kind != "values":
            raise UsageError(f"{experiment.dataset} has no series of values to forecast", flag)


def _check_colors(experiment: Experiment, spec: DatasetSpec) -> None:
    """Raises UsageError where a flag changes colors that images do not have."""
    channels = spec.shape[-1]
    refused = {1: ("saturation", "pca_color"), 3: ()}.get(channels, ("contrast", "saturation"))
    refused = [flag for flag in refused if getattr(experiment, flag)]
    if channels != 3 and experiment.normalize == "imagenet":
        refused.append("normalize")
    if refused:
        raise UsageError(f"{experiment.dataset} has {channels} channels, not red, green and blue", refused[0])


def stored_size(experiment: Experiment, size: int) -> int:
    """Pixels a side that images are kept at where the model sees `size`. Raises UsageError where these are more."""
    if experiment.stored_size and not (experiment.image_size or models.wanted_image_size(experiment.model, experiment.knobs)):
        raise UsageError(f"{experiment.model} takes images of any size: give --image_size, to which to crop them", "stored_size")
    if 0 < experiment.stored_size < size:
        raise UsageError(f"images of {experiment.stored_size} cannot be cropped to {size}", "stored_size")
    return experiment.stored_size or size


def model_shape(experiment: Experiment, spec: DatasetSpec, size: int) -> tuple[int, ...]:
    """Shape of one of a model's inputs: of an image, resized to `size`, or of what the data set has instead.

    Raises UsageError where the model cannot take it, or does not write what the data set has as targets.
    """
    shape = (size, size, spec.shape[-1]) if spec.kind == "images" else spec.shape
    model, own = experiment.model, experiment.knobs
    if not models.takes_sequences(models.module_class(model)):
        check_fits(model, own, shape, task_of(spec).outputs(spec).num_classes)
        return shape
    asked, one_way = task_of(spec).outputs(spec), spec.kind in ("words", "text") or experiment.ahead
    delayed = issubclass(models.module_class(model), EncoderDecoder)
    if (delayed and one_way) or (own.get("bidirectional") and (spec.kind == "text" or experiment.ahead)):
        said = f"{model} sees all of a sequence before it tells a step of it" if delayed else "would see what it is to tell"
        raise UsageError(said, "model" if delayed else "bidirectional")
    module = models.build(model, **asked._asdict(), **own)
    example = jnp.zeros((1, *shape), jnp.int32 if asked.vocabulary else jnp.float32)
    written = jax.eval_shape(module.init_with_output, jax.random.key(0), example)[0].shape[1:]
    wanted = (*([asked.output_steps] if asked.output_steps else []), asked.num_classes)
    if written != wanted:
        said = f"{model} writes {list(written)} for an example, the targets of {experiment.dataset} are {list(wanted)}"
        raise UsageError(f"{said}; a sequence behind the input takes gru_seq2seq, any other target gru or lstm", "model")
    return shape


def check_fits(name: str, values: Mapping[str, Any], image_shape: tuple[int, ...], num_classes: int) -> None:
    """Raises UsageError where a model that was made for another image size cannot take `image_shape`."""
    wanted = models.wanted_image_size(name, values)
    if not values and (image_shape[0] == wanted or not wanted):
        # A fault of such a model is a fault of its code, and its traceback says more than we could.
        return
    module = models.build(name, num_classes=num_classes, **values)
    try:
        shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *image_shape)))
        # No feature map has shrunk to nothing.
        fits = all(leaf.size for leaf in jax.tree.leaves(shapes))
    except Exception:
        fits = False
    if not fits:
        hint = f"it wants {wanted}" if image_shape[0] != wanted else "not with these knobs"
        raise UsageError(f"{name} cannot take images of {image_shape[0]} pixels a side; {hint}", "image_size")
