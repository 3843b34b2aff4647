"""The Python interface: trains an experiment, loads a run, predicts."""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from percept_jax import records
from percept_jax.console import say
from percept_jax.data import cache, feed, preprocess, registry
from percept_jax.data.preprocess import Preprocessing
from percept_jax.data.readers.arrays import Arrays
from percept_jax.errors import StorageError, UsageError
from percept_jax.experiment import KNOBS, Experiment
from percept_jax.models.recurrent import EncoderDecoder
from percept_jax.paths import user_path
from percept_jax.plots.run import draw_finished_run
from percept_jax.tasks.base import Task
from percept_jax.training import checkpoint, evaluation, loop, parallel, stored
from percept_jax.training.preflight import absolute, check, default_name, describe_data, load_data, located, reader_config, select
from percept_jax.training.program import Program, make_program
from percept_jax.training.reporter import Reporter
from percept_jax.training.run_dir import RunDir, data_path, refuse_strangers, run_path
from percept_jax.training.step import generate_step, predict_step
from percept_jax.training.trial import Trial


class Prediction(NamedTuple):
    """Labels `[examples]`, int; probabilities and logits `[examples, classes]`; the names of the classes.

    If the model labels each time step, the shapes are `[examples, time]` and `[examples, time, classes]`, where time is that of
    the longest example; entries past an example's length are undefined.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    logits: np.ndarray
    classes: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model, with the weights of its best validated step.

    Attributes:
        path: the run directory.
        experiment: the experiment of the run.
        preprocessing: the preprocessing of an example for the model.
        variables: the variables of the Flax module.
        best_step: the step of these variables; None before the first validation, when they are the initial ones.
        data_crc: the checksum of the training data set.
        result: the content of result.json; None if the run is unfinished.
    """

    path: Path
    experiment: Experiment
    preprocessing: Preprocessing
    variables: dict[str, Any]
    best_step: int | None
    data_crc: int
    result: records.Result | None

    @cached_property
    def _program(self) -> Program:
        return make_program(self.experiment, self.preprocessing, task_name=self.preprocessing.task)

    @property
    def task(self) -> Task:
        """The task of the model."""
        return self._program.task

    @property
    def every_step(self) -> bool:
        """Whether there is one output per time step of the input, rather than for later steps or one per example."""
        return self._program.outputs.output_steps is not None and not isinstance(self._program.module, EncoderDecoder)

    @cached_property
    def _predict(self) -> Callable[..., tuple[jax.Array, jax.Array]]:
        return jax.jit(partial(predict_step, program=self._program))

    def predict(self, inputs: np.ndarray | Sequence[np.ndarray]) -> Prediction:
        """Returns the predicted classes of inputs.

        The inputs are uint8 images `[height, width(, channels)]`, whose sizes may differ; points `[features]`; or sequences of
        any length, float `[time, features]` or int tokens `[time]`.

        Raises UsageError if the model does not take these inputs, or does not predict classes.
        """
        if not self.task.distributions:
            raise UsageError(f"{self.path} was trained for {self.task.name} and predicts no classes; use predictions()")
        logits, probabilities = self._outputs(inputs)
        # Labels come from the logits, because probabilities may be equal after rounding.
        return Prediction(logits.argmax(-1), probabilities, logits, self.preprocessing.classes)

    def forecast(self, sequences: Sequence[np.ndarray]) -> np.ndarray:
        """Returns forecasts `[sequences, (steps,) features]`, in the data set's units, for sequences as in `predict`.

        Raises UsageError if the model does not take these sequences, or predicts classes.
        """
        if not self._program.outputs.values or not self.preprocessing.target_inv_std:
            raise UsageError(f"{self.path} was trained for {self.task.name} and forecasts no values; use predictions()")
        outputs, _ = self._outputs(sequences)
        return outputs / np.array(self.preprocessing.target_inv_std) + np.array(self.preprocessing.target_mean)

    def predictions(self, inputs: np.ndarray | Sequence[np.ndarray], top_k: int = 3) -> list[dict[str, Any]]:
        """Returns the prediction of each input as JSON values, classes or numbers as the task defines them.

        Args:
            inputs: the examples, as in `predict`.
            top_k: the number of classes to return for an example with one label.

        Raises:
            UsageError: the model does not take these inputs.
        """
        outputs, probabilities = self._outputs(inputs)
        # Outputs past the end of an example are undefined, so they are cut off.
        ends = [len(example) if self.every_step else None for example in inputs]
        rows = zip(outputs, probabilities, ends, strict=True)
        return [self.task.prediction(output[:end], p[:end], self.preprocessing, top_k) for output, p, end in rows]

    def generate(self, prompt: str, length: int, temperature: float = 1.0, seed: int = 0) -> str:
        """Returns `length` characters that continue `prompt`, drawn from the softmax of logits / temperature; 0: the likeliest.

        Raises UsageError if this is not a language model, or if a character of the prompt was not in its training text.
        """
        if not self.task.generates:
            raise UsageError(f"{self.path} is not a language model")
        number = {character: i for i, character in enumerate(self.preprocessing.words)}
        if unseen := set(prompt) - set(number):
            raise UsageError(f"{sorted(unseen)[0]!r} is not in the training text of the model")
        if not prompt:
            raise UsageError("the prompt is empty; give one character or more")
        with jax.enable_x64(self.experiment.dtype == "float64"):
            step = jax.jit(partial(generate_step, program=self._program))
            carry, key = {}, jax.random.key(seed, impl="threefry2x32")
            tokens = [number[character] for character in prompt]
            for i in range(len(prompt) + length - 1):
                draw = np.float32(temperature), jax.random.fold_in(key, i)
                token, carry = step(self.variables, carry, np.int32(tokens[i]), *draw)
                if i + 1 == len(tokens):
                    tokens.append(int(token))
        return "".join(self.preprocessing.words[token] for token in tokens[len(prompt) :])

    def _outputs(self, inputs: np.ndarray | Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Returns logits and probabilities of inputs as in `predict`, computed in batches."""
        examples = [np.asarray(example) for example in inputs]
        examples = [x[..., None] if x.ndim == 2 and self.preprocessing.kind == "images" else x for x in examples]
        for example in examples:
            self.preprocessing.check(example)
        longest, rows = max((len(example) for example in examples), default=0), []
        with jax.enable_x64(self.experiment.dtype == "float64"):
            mean, inv_std = (
                np.array(numbers, self.experiment.real_dtype) for numbers in (self.preprocessing.mean, self.preprocessing.inv_std)
            )
            for first in range(0, len(examples), feed.BATCH):
                batch, lengths = self.preprocessing.stack(examples[first : first + feed.BATCH], longest)
                rows.append(jax.device_get(self._predict(self.variables, batch, lengths, mean, inv_std)))
        if not rows:
            nothing = np.zeros((0, self._program.outputs.num_classes))
            return nothing, nothing
        logits, probabilities = zip(*rows, strict=True)
        return np.concatenate(logits), np.concatenate(probabilities)

    def evaluate(self, data_dir: str = "", dataset: str = "") -> dict[str, dict[str, Any]]:
        """Returns the metrics of the validation and test splits, by split and name, over every example once.

        Args:
            data_dir: the folder of the data sets; empty: the default of --data_dir.
            dataset: the data set, as in --dataset, if it has moved since the run.

        Raises:
            UsageError: the data are missing (arrays that were passed to `train` always are), or have changed.
        """
        folder = data_path(data_dir)
        location = registry.located(dataset, folder) if dataset else self.experiment.dataset
        experiment = dataclasses.replace(self.experiment, dataset=location)
        spec = describe_data(experiment, folder)
        data = load_data(experiment, folder, spec, self.preprocessing.image_size)
        data.check(self.data_crc, experiment.dataset, self.path)
        with jax.enable_x64(self.experiment.dtype == "float64"):
            devices = jax.local_devices()[:1]
            placed = parallel.place(preprocess.device_data(data, self.preprocessing, self.experiment.real_dtype), devices)
            step = parallel.compile_eval(self._program, devices, 1)
            variables = parallel.place(jax.tree.map(lambda x: x[None], self.variables), devices)
            batch = feed.evaluation_batch_size(data, 1)
            found = {}
            for split in ("validation", "test"):
                totals = evaluation.evaluate(step, variables, feed.batches(placed, spec.roles[split], batch))
                found[split] = evaluation.metrics(totals, 0, self._program)
            return found


def train(experiment: Experiment, data: tuple[np.ndarray, np.ndarray] | None = None, **options: Any) -> Trained:
    """Trains, resumes or only loads an experiment, and returns the trained model. Arguments and errors are those of `run`."""
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
    """Trains or resumes an experiment unless it is finished, and returns its run directory. Prints the progress.

    Args:
        experiment: the experiment.
        data: uint8 images `[examples, height, width(, channels)]` and labels `[examples]`, to be used instead of the
            experiment's data set; they are split 60 / 20 / 20 %, stratified, always in the same way.
        name: the name of the folder under runs/; by default that of the data set and the model.
        report: shows the progress to the user.
        interrupted: returns the number of the signal that asked to stop, if one has arrived.
        began: `time.time()` at which the command was given.

    Raises:
        UsageError: a value is wrong, or the run directory holds another run. Nothing has been written.
        DataError: the loss is not finite, or a record is bad.
        StorageError: a file cannot be written or is damaged.
        Interrupted: `interrupted` returned a signal. The state has been saved, and the same call resumes.
    """
    began, report = began or time.time(), report or Reporter()
    if data is not None:
        experiment = dataclasses.replace(experiment, dataset=_name_of(data))
    experiment.validate()
    folder, name = data_path(experiment.data_dir), name or default_name(experiment)
    try:
        experiment = located(experiment, folder)
    except UsageError:
        if path := stored.finished_before(absolute(experiment, folder), name):
            report.note(f"the data or the initial weights are missing, but {path} was finished with them")
            return stored.check_finished(path, report.note)
        raise
    path = run_path(experiment, name)
    refuse_strangers(path, experiment)
    finished = not experiment.fresh and (path / "result.json").exists()
    if not finished:
        begun = not experiment.fresh and bool(checkpoint.steps(path / "checkpoints"))
        reader = data and Arrays(*data)
        found = check(experiment, reader and select(experiment, reader.describe()), begun)
        loop.choose_devices(experiment, found.spec)
        for line in found.notes:
            report.note(line)
        config = reader_config(experiment)
        dataset = cache.load(reader, found.spec, found.stored_size, config, folder) if reader else found.load(report.note)
        run_dir = RunDir(path, experiment)
        try:
            # Another process may have finished the run in the meantime.
            if not (path / "result.json").exists():
                loop.train_pack([Trial(experiment, run_dir)], dataset, report, interrupted, began)
        finally:
            run_dir.close()
    draw_finished_run(path, report.note, again=not finished)
    return stored.check_finished(path, report.note)


def _name_of(data: tuple[np.ndarray, np.ndarray]) -> str:
    """Returns the data set name of arrays, with a digest of their content. Raises UsageError unless they are a pair."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise UsageError("data must be a pair: images, labels")
    digest = hashlib.sha256(b"".join(repr((a.shape, a.dtype)).encode() + a.tobytes() for a in map(np.asarray, data)))
    return f"{registry.ARRAYS}{digest.hexdigest()[:12]}"


def load(run_dir: str | Path) -> Trained:
    """Returns the model of a finished or unfinished run. Prints a line on standard error for each checkpoint that is skipped.

    Raises UsageError if there is no run, StorageError if its files are damaged or belong to another run.
    """
    path = user_path(run_dir)
    found = stored.read(path, lambda line: say(line, error=True))
    header = found.header
    try:
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in header["experiment"].items()}
        knobs = {name: values.pop(name) for name in list(values) if name not in KNOBS}
        experiment = Experiment(**values, knobs=knobs, run_dir=str(path))
        preprocessing = preprocess.read(header["preprocessing"])
        experiment.validate()
    except (TypeError, ValueError, KeyError, AttributeError, UsageError) as error:
        raise StorageError(f"{path}: its checkpoint was written by another version: {error}") from error
    return Trained(
        path=path,
        experiment=experiment,
        preprocessing=preprocessing,
        variables=stored.best(found),
        best_step=(header["progress"]["best"] or {}).get("step"),
        data_crc=header["data_crc"],
        result=found.result,
    )
