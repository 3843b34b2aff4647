"""What is done to an example before a model sees it: decided once, at the start of a run, and kept with its weights."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from percept_jax import models
from percept_jax.data.augment import Augmentation, principal_components
from percept_jax.data.dataset import Dataset, Info, Kind, channel_statistics
from percept_jax.data.images import resize
from percept_jax.errors import UsageError
from percept_jax.experiment import Experiment
from percept_jax.models.recurrent import EncoderDecoder
from percept_jax.tasks import task_of

# Means and deviations of red, green and blue, from 0 to 1, that most of torchvision's published weights were trained with.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Input(NamedTuple):
    """How an example becomes a model's input, `(pixels - mean) * scale`, and what its outputs are called. All JSON.

    Attributes:
        shape, kind, target_shape, words, classes: those of the data set, see `Info`.
        image_size: pixels a side that images are resized to, before a model may see a crop of them; 0 for sequences.
        mean, scale: one number a channel or feature; none for tokens.
        components: `[channels, channels]`, columns are the principal components of the colours, from 0 to 1.
        target_mean, target_scale: one number a feature of targets that are values, which a model learns as it sees inputs.
    """

    shape: Sequence[int]
    image_size: int
    mean: Sequence[float]
    scale: Sequence[float]
    classes: Sequence[str]
    components: Sequence[Sequence[float]] = ()
    kind: Kind = "images"
    target_shape: Sequence[int] = ()
    words: Sequence[str] = ()
    target_mean: Sequence[float] = ()
    target_scale: Sequence[float] = ()

    @property
    def sequences(self) -> bool:
        """Whether an example is a sequence."""
        return self.kind not in ("images", "points")

    def check(self, example: np.ndarray) -> None:
        """Raises UsageError unless a model of this input can take `example`."""
        channels = self.shape[-1]
        if self.words:
            whole = example.ndim == 1 and np.issubdtype(example.dtype, np.integer)
            if not whole or not len(example) or not 0 <= example.min() <= example.max() < len(self.words):
                raise UsageError(f"a sequence is {example.dtype} {list(example.shape)}, not tokens 0 to {len(self.words) - 1}")
        elif self.kind == "values":
            if example.ndim != 2 or example.shape[1] != channels or not len(example) or not _fits_float32(example):
                raise UsageError(f"a sequence is {list(example.shape)}, not [time, {channels}] of finite numbers")
        elif self.kind == "points":
            if example.shape != (channels,) or not _fits_float32(example):
                raise UsageError(f"a point is {list(example.shape)}, not [{channels}] of finite numbers")
        elif example.ndim != 3 or example.dtype != np.uint8 or example.shape[-1] != channels:
            raise UsageError(f"an image is {example.dtype} {list(example.shape)}, not uint8 [height, width, {channels}]")

    def fit(self, examples: Sequence[np.ndarray], longest: int = 0) -> tuple[np.ndarray, np.ndarray | None]:
        """Inputs and lengths as in `Dataset`, of examples that pass `check`; sequences are padded to `longest`.

        Images are resized by way of the size in which the data set stores them, if it has one, as the training images went.
        """
        if self.kind == "points":
            return np.asarray(examples, np.float32).reshape(-1, 1, 1, self.shape[-1]), None
        if self.sequences:
            lengths = np.array([len(example) for example in examples], np.int32)
            padded = np.zeros(
                (len(examples), max(longest, lengths.max()), *self.shape[1:]), np.int32 if self.words else np.float32
            )
            for row, example in zip(padded, examples, strict=True):
                row[: len(example)] = example
            return padded, lengths
        height, width, _ = self.shape
        stored = (resize(image, height, width) if height else image for image in examples)
        return np.stack([resize(image, self.image_size, self.image_size) for image in stored]), None


def _fits_float32(array: np.ndarray) -> bool:
    """Whether an array is one of numbers, which are finite in float32."""
    return array.dtype.kind in "fiub" and bool((np.abs(array.astype(np.float64)) <= np.finfo(np.float32).max).all())


def image_size(experiment: Experiment, info: Info) -> int:
    """Pixels a side that a model sees: --image_size, else what it was made for, else what the data set has; 0 for sequences.

    Raises UsageError where all three are silent, or where a flag or the model does not suit what the data set has.
    """
    wanted = models.wanted_image_size(experiment.model, experiment.knobs)
    _check_task(experiment, info)
    if info.kind == "images":
        _check_colours(experiment, info)
        size = experiment.image_size or wanted or max(info.shape[:2])
        if not size:
            raise UsageError(f"{experiment.dataset} has images of several sizes: give the one to resize them to", "image_size")
        for flag in ("random_crop", "cutout"):
            if getattr(experiment, flag) > size:
                raise UsageError(f"{getattr(experiment, flag)} pixels are more than the image has, which is {size} a side", flag)
        return size
    has = "points" if info.kind == "points" else "sequences"
    for flag in ("image_size", "stored_size", *Augmentation._fields, "mixup"):
        if getattr(experiment, flag):
            raise UsageError(f"{experiment.dataset} has {has}, not images", flag)
    if experiment.normalize in ("unit", "imagenet"):
        raise UsageError(f"{has} do not go from 0 to 255; choose standard or none", "normalize")
    if has == "sequences" and not models.takes_sequences(models.module_class(experiment.model)):
        raise UsageError(f"{experiment.model} takes images, {experiment.dataset} has sequences; take lstm or gru", "model")
    if has == "points" and wanted:
        raise UsageError(f"{experiment.model} takes images, {experiment.dataset} has points; take linear or mlp", "model")
    return int(has == "points")


def _check_task(experiment: Experiment, info: Info) -> None:
    """Raises UsageError where a flag asks for what the data set's targets or sequences are not."""
    task = task_of(info)
    if experiment.loss not in task.objectives and task.name not in task.objectives:
        what = "classes" if info.classes else "values"
        raise UsageError(f"{experiment.dataset} has {what}; take {' or '.join(task.objectives)}", "loss")
    if experiment.label_smoothing and not task.distributions:
        raise UsageError(f"{experiment.dataset} has no labels", "label_smoothing")
    if experiment.sequence_length != Experiment.sequence_length and info.kind != "text":
        raise UsageError(f"{experiment.dataset} is no text", "sequence_length")
    for flag in ("ahead", "horizon"):
        if getattr(experiment, flag) and info.kind != "values":
            raise UsageError(f"{experiment.dataset} has no series of values to forecast", flag)


def _check_colours(experiment: Experiment, info: Info) -> None:
    """Raises UsageError where a flag changes colours that images do not have."""
    channels = info.shape[-1]
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


def model_shape(experiment: Experiment, info: Info, size: int) -> tuple[int, ...]:
    """Shape of one of a model's inputs: of an image, resized to `size`, or of what the data set has instead.

    Raises UsageError where the model cannot take it, or does not write what the data set has as targets.
    """
    shape = (size, size, info.shape[-1]) if info.kind == "images" else tuple(info.shape)
    model, knobs = experiment.model, experiment.knobs
    if not models.takes_sequences(models.module_class(model)):
        models.check_fits(model, knobs, shape, len(info.classes))
        return shape
    asked, one_way = task_of(info).outputs(info), info.kind in ("words", "text") or experiment.ahead
    delayed = issubclass(models.module_class(model), EncoderDecoder)
    if (delayed and one_way) or (knobs.get("bidirectional") and (info.kind == "text" or experiment.ahead)):
        said = f"{model} sees all of a sequence before it tells a step of it" if delayed else "would see what it is to tell"
        raise UsageError(said, "model" if delayed else "bidirectional")
    module = models.build(model, **asked._asdict(), **knobs)
    example = jnp.zeros((1, *shape), jnp.int32 if asked.vocabulary else jnp.float32)
    written = jax.eval_shape(module.init_with_output, jax.random.key(0), example)[0].shape[1:]
    wanted = (*([asked.output_steps] if asked.output_steps else []), asked.num_classes)
    if written != wanted:
        said = f"{model} writes {list(written)} for an example, the targets of {experiment.dataset} are {list(wanted)}"
        raise UsageError(f"{said}; a sequence behind the input takes gru_seq2seq, any other target gru or lstm", "model")
    return shape


def describe(normalize: str, dataset: Dataset) -> Input:
    """The input of a run on this data set; statistics are those of the training split, of the real steps of sequences."""
    info, train = dataset.info, np.sort(dataset.info.index["train"])
    size = 0 if dataset.lengths is not None else dataset.inputs.shape[1]
    found = Input(info.shape, size, (), (), info.classes, (), info.kind, info.target_shape, info.words)
    if not info.classes:
        targets = dataset.targets[train].reshape(-1, dataset.targets.shape[-1])
        mean, deviation = _statistics(targets[~np.isnan(targets).any(1)], normalize)[:2]
        found = found._replace(target_mean=mean.tolist(), target_scale=(1 / deviation).tolist())
    if info.words:
        return found
    inputs = dataset.inputs[train]
    if dataset.lengths is not None:
        inputs = inputs[np.arange(inputs.shape[1]) < dataset.lengths[train][:, None]]
    mean, deviation, covariance = _statistics(inputs, normalize)
    components = principal_components(covariance / 255**2).tolist() if info.kind == "images" else ()
    return found._replace(mean=mean.tolist(), scale=(1 / deviation).tolist(), components=components)


def _statistics(arrays: np.ndarray, normalize: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and deviation of each channel, as --normalize takes them, and the channels' covariance."""
    mean, covariance = channel_statistics(arrays)
    deviation = np.sqrt(np.diag(covariance))
    if normalize == "imagenet":
        mean, deviation = 255 * np.array(IMAGENET)
    elif normalize != "standard":
        mean, deviation = np.zeros_like(mean), np.full_like(mean, {"unit": 255.0, "none": 1.0}[normalize])
    return mean, np.where(deviation > 0, deviation, 1.0), covariance
