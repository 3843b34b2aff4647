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
    """Labels `[examples]`, int; probabilities and the logits behind them, `[examples, classes]`; the classes' names.

    Of a model that labels each time step: `[examples, time]` and `[examples, time, classes]`, up to the longest example; entries
    past an example's length are undefined.
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
        experiment: what was run.
        preprocessing: what is done to an example before the model sees it.
        variables: of the Flax module.
        best_step: the step that they are from; None before the first validation, when they are the initial ones.
        data_crc: checksum of the data set that it was trained on.
        result: what result.json holds; None while the run is unfinished.
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
        return make_program(self.experiment, self.preprocessing)

    @property
    def task(self) -> Task:
        """What is asked of the model."""
        return self._program.task

    @property
    def every_step(self) -> bool:
        """Whether its outputs are one for each time step of its input, and not for steps behind it, or one an example."""
        return self._program.outputs.output_steps is not None and not isinstance(self._program.module, EncoderDecoder)

    @cached_property
    def _predict(self) -> Callable[..., tuple[jax.Array, jax.Array]]:
        return jax.jit(partial(predict_step, program=self._program))

    def predict(self, inputs: np.ndarray | Sequence[np.ndarray]) -> Prediction:
        """Classes of uint8 images `[height, width(, channels)]`, of any size and of one size each; of points `[features]`; of
        sequences of any length, float `[time, features]` or int tokens `[time]`.

        Raises UsageError where they are something else, or the model knows no classes.
        """
        if not self.preprocessing.classes:
            raise UsageError(f"{self.path} forecasts values; it knows no classes")
        logits, probabilities = self._outputs(inputs)
        return Prediction(
            logits.argmax(-1),
            probabilities,
            logits,
            self.preprocessing.classes,
            # Probabilities may round to equals.
        )

    def forecast(self, sequences: Sequence[np.ndarray]) -> np.ndarray:
        """Values `[sequences, (steps,) features]`, in the data set's units, of sequences as `predict` takes them.

        Raises UsageError where they are something else, or the model predicts classes.
        """
        if self.preprocessing.classes:
            raise UsageError(f"{self.path} predicts classes; it forecasts no values")
        outputs, _ = self._outputs(sequences)
        return outputs / np.array(self.preprocessing.target_inv_std) + np.array(self.preprocessing.target_mean)

    def predictions(self, inputs: np.ndarray | Sequence[np.ndarray], top_k: int = 3) -> list[dict[str, Any]]:
        """Returns what the task makes of each of the inputs, given as in `predict`: classes or values, as JSON.

        Args:
            inputs: the examples.
            top_k: classes to show of an example that has one label.

        Raises:
            UsageError: they are something else than the model takes.
        """
        outputs, probabilities = self._outputs(inputs)
        # What stands behind the end of an example means nothing.
        ends = [len(example) if self.every_step else None for example in inputs]
        rows = zip(outputs, probabilities, ends, strict=True)
        return [self.task.prediction(output[:end], shares[:end], self.preprocessing, top_k) for output, shares, end in rows]

    def generate(self, prompt: str, length: int, temperature: float = 1.0, seed: int = 0) -> str:
        """`length` characters that go on from `prompt`, drawn from the softmax of logits / temperature; 0: the likeliest.

        Raises UsageError where this is no language model, or has not seen a character of the prompt.
        """
        if self.preprocessing.kind != "text":
            raise UsageError(f"{self.path} is no language model")
        number = {character: i for i, character in enumerate(self.preprocessing.words)}
        if unseen := set(prompt) - set(number):
            raise UsageError(f"{sorted(unseen)[0]!r} is not in the text that it has learned")
        if not prompt:
            raise UsageError("a prompt of one character or more is needed")
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
        """Logits and probabilities of inputs as `predict` takes them, in batches."""
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
        """Metrics of the validation and the test split, by name: every example once.

        Args:
            data_dir: where the data set is looked for; else where a run without --data_dir looks.
            dataset: where the same data are now, as --dataset says it; else where they were.

        Raises:
            UsageError: the data are not there, as arrays of a program never are, or have changed since.
        """
        folder = data_path(data_dir)
        where = registry.located(dataset, folder) if dataset else self.experiment.dataset
        experiment = dataclasses.replace(self.experiment, dataset=where)
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
        experiment = dataclasses.replace(experiment, dataset=_name_of(data))
    experiment.validate()
    folder, name = data_path(experiment.data_dir), name or default_name(experiment)
    try:
        experiment = located(experiment, folder)
    except UsageError:
        if path := stored.finished_before(absolute(experiment, folder), name):
            report.note(f"the data or the weights are not there any more; {path} was finished with them")
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
            # Unless another process has finished it meanwhile.
            if not (path / "result.json").exists():
                loop.train_pack([Trial(experiment, run_dir)], dataset, report, interrupted, began)
        finally:
            run_dir.close()
    draw_finished_run(path, report.note, again=not finished)
    return stored.check_finished(path, report.note)


def _name_of(data: tuple[np.ndarray, np.ndarray]) -> str:
    """The name of arrays as a data set, by their content. Raises UsageError unless they are a pair."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise UsageError("data is a pair: images, labels")
    digest = hashlib.sha256(b"".join(repr((a.shape, a.dtype)).encode() + a.tobytes() for a in map(np.asarray, data)))
    return f"{registry.ARRAYS}{digest.hexdigest()[:12]}"


def load(run_dir: str | Path) -> Trained:
    """What a run left, or has left so far; a checkpoint that was passed over is told of on standard error.

    Raises UsageError where there is no run, StorageError where its files are damaged, or are not its own.
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
