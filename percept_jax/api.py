"""From Python: train an experiment, load what it left, predict."""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from percept_jax import models
from percept_jax.data import arrays, inputs, sources
from percept_jax.data.dataset import Info
from percept_jax.data.inputs import Input
from percept_jax.errors import DataError, UsageError
from percept_jax.experiment import KNOBS, Experiment
from percept_jax.training import checkpoint, evaluation, loop, parallel
from percept_jax.training.pack import Trial
from percept_jax.training.progress import Reporter
from percept_jax.training.run_dir import RunDir, data_path, read_json, refuse_strangers, run_path
from percept_jax.training.step import make_program, predict_step


class Prediction(NamedTuple):
    """Labels `[images]`, int; probabilities and the logits behind them, `[images, classes]`; the classes' names."""

    labels: np.ndarray
    probabilities: np.ndarray
    logits: np.ndarray
    classes: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model, with the weights of its best validated step.

    Attributes:
        path: the run directory.
        experiment: what was run.
        input: what is done to an image before the model sees it.
        variables: of the Flax module.
        best_step: the step that they are from; None before the first validation, when they are the initial ones.
        data_crc: checksum of the data set that it was trained on.
        result: what result.json holds; None while the run is unfinished.
    """

    path: Path
    experiment: Experiment
    input: Input
    variables: dict[str, Any]
    best_step: int | None
    data_crc: int
    result: dict[str, Any] | None

    @cached_property
    def _program(self) -> Any:
        return make_program(self.experiment, len(self.input.classes))

    @cached_property
    def _predict(self) -> Callable[..., jax.Array]:
        return jax.jit(partial(predict_step, program=self._program))

    def predict(self, images: np.ndarray | Sequence[np.ndarray]) -> Prediction:
        """Classes of uint8 images `[height, width(, channels)]`, of any size and of one size each; or of points `[features]`.

        Raises UsageError where they are something else, or have another number of channels than the training images.
        """
        channels = self.input.image_shape[-1]
        images = [image[..., None] if image.ndim == 2 else image for image in map(np.asarray, images)]
        for image in images:
            if self.input.points and image.shape != (channels,):
                raise UsageError(f"a point is {list(image.shape)}, not [{channels}]")
            if not self.input.points and (image.ndim != 3 or image.dtype != np.uint8 or image.shape[-1] != channels):
                raise UsageError(f"an image is {image.dtype} {list(image.shape)}, not uint8 [height, width, {channels}]")
        rows = [np.zeros((2, 0, len(self.input.classes)))]
        with jax.enable_x64(self.experiment.dtype == "float64"):
            mean, scale = (np.array(numbers, self.experiment.real_dtype) for numbers in (self.input.mean, self.input.scale))
            for first in range(0, len(images), evaluation.BATCH):
                batch = self.input.fit(images[first : first + evaluation.BATCH])
                rows.append(np.asarray(self._predict(self.variables, batch, mean, scale)))
        logits, probabilities = np.concatenate(rows, axis=1)
        return Prediction(logits.argmax(-1), probabilities, logits, self.input.classes)  # probabilities may round to equals

    def evaluate(self, data_dir: str = "") -> dict[str, dict[str, Any]]:
        """Metrics of the validation and the test split, by name: every example once.

        The data set is looked for in `data_dir`, else where a run without --data_dir looks. Raises UsageError where
        the model was trained on arrays, which are not here any more, or the data set has changed since.
        """
        folder = data_path(data_dir)
        info = select(self.experiment, sources.describe(self.experiment.dataset, folder))
        dataset = sources.load(self.experiment.dataset, folder, info, self.input.image_size)
        dataset.check(self.data_crc, self.experiment.dataset, self.path)
        with jax.enable_x64(self.experiment.dtype == "float64"):
            devices = jax.local_devices()[:1]
            data = parallel.place(evaluation.device_data(dataset, self.input, self.experiment.real_dtype), devices)
            step = parallel.compile_eval(self._program, devices, 1)
            variables = parallel.place(jax.tree.map(lambda x: x[None], self.variables), devices)
            batch = evaluation.batch_size(dataset, 1)
            splits = {split: info.index[split] for split in ("validation", "test")}
            return {
                split: evaluation.metrics(evaluation.evaluate(step, variables, index, batch, data), 0)
                for split, index in splits.items()
            }


def train(experiment: Experiment, data: tuple[np.ndarray, np.ndarray] | None = None, **options: Any) -> Trained:
    """Trains an experiment, or finishes it, unless it is finished; then loads it. Arguments and errors are those of `run`."""
    return load(run(experiment, data, **options))


def run(
    experiment: Experiment,
    data: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    name: str = "",
    report: Reporter | None = None,
    interrupted: Callable[[], int | None] = lambda: None,
    began: float | None = None,
) -> Path:
    """Trains an experiment, or finishes it, unless it is finished; the run directory. Says how it goes on standard output.

    Args:
        experiment: what to run.
        data: uint8 images `[examples, height, width(, channels)]` and labels `[examples]`, to be used in place of the
            experiment's data set; they are split 60 / 20 / 20 %, stratified, always the same way.
        name: the folder under runs/; the data set's and the model's name unless given.
        report: what tells a person how it goes.
        interrupted: the number of a signal that asks to stop, once one has come.
        began: `time.time()` at which the command was given.

    Raises:
        UsageError: a value is wrong, or the run directory holds another run. Nothing has been written.
        DataError: the loss is not finite, or a record is bad.
        StorageError: a file cannot be written or is damaged.
        Interrupted: `interrupted` said so. All is saved, and the same call goes on.
    """
    began, report = began or time.time(), report or Reporter()
    if data is not None:
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            raise UsageError("data is a pair: images, labels")
        digest = hashlib.sha256(b"".join(repr((a.shape, a.dtype)).encode() + a.tobytes() for a in map(np.asarray, data)))
        experiment = dataclasses.replace(experiment, dataset=f"{sources.ARRAYS}{digest.hexdigest()[:12]}")
    experiment = dataclasses.replace(experiment, dataset=sources.located(experiment.dataset))
    experiment.validate()
    path = run_path(experiment, name or default_name(experiment))
    refuse_strangers(path, experiment)
    finished = not experiment.fresh and (path / "result.json").exists()
    if not finished:
        folder = data_path(experiment.data_dir)
        info = sources.describe(experiment.dataset, folder) if data is None else arrays.describe(*data)
        info = select(experiment, info)
        loop.choose_devices(experiment, info)
        size = inputs.image_size(experiment, info)
        models.check_fits(experiment.model, experiment.knobs, (size, size, info.image_shape[-1]), len(info.classes))
        experiment.total_steps(len(info.index["train"]))
        if data is None:
            if not sources.is_prepared(experiment.dataset, folder):
                report.note(f"preparing {experiment.dataset} in {folder}")
            dataset = sources.load(experiment.dataset, folder, info, size)
        else:
            dataset = arrays.load(info, *data, size)
        run_dir = RunDir(path, experiment)
        try:
            if not (path / "result.json").exists():  # unless another process has finished it meanwhile
                loop.train_pack([Trial(experiment, run_dir)], dataset, report, interrupted, began)
        finally:
            run_dir.close()
    result = read_json(path / "result.json")
    if result["status"] == "diverged":
        raise DataError(f"{path}: the loss was not finite at step {result['steps']}; try a lower --learning_rate")
    return path


def select(experiment: Experiment, info: Info) -> Info:
    """A data set with the examples that an experiment trains, validates and tests on. Raises UsageError."""
    return info.select(experiment.train_split, experiment.validation_split, experiment.test_split)


def default_name(experiment: Experiment) -> str:
    """The folder under runs/ of an experiment that no flag file names."""
    return f"{sources.short_name(experiment.dataset)}_{experiment.model}"


def load(run_dir: str | Path) -> Trained:
    """What a run left, or has left so far. Raises UsageError where there is none, StorageError where it is damaged."""
    path = Path(run_dir)
    if not (path / "provenance.json").exists():
        raise UsageError(f"{path}: not a run directory")
    newest = checkpoint.newest(path / "checkpoints")
    if newest is None:
        raise UsageError(f"{path}: no checkpoint yet")
    arrays, header = newest[0]
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in header["experiment"].items()}
    knobs = {name: values.pop(name) for name in list(values) if name not in KNOBS}
    best = header["progress"]["best"] or {}
    return Trained(
        path=path,
        experiment=Experiment(**values, knobs=knobs, run_dir=str(path)),
        input=Input(**header["input"]),
        variables=checkpoint.nested(arrays, "best/"),
        best_step=best.get("step"),
        data_crc=header["data_crc"],
        result=read_json(path / "result.json") if (path / "result.json").exists() else None,
    )
