"""Whether an experiment can be run: its data set, the size of its images and its weights, before anything is written."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax

from percept_jax.data import inputs, sources
from percept_jax.data.dataset import Dataset, Info
from percept_jax.data.sequences import Reading
from percept_jax.experiment import Experiment, stack_hparams
from percept_jax.training import extension, initial
from percept_jax.training.optim import check_patterns
from percept_jax.training.program import make_program
from percept_jax.training.run_dir import data_path
from percept_jax.training.step import init_state


class Ready(NamedTuple):
    """An experiment that can be trained as far as one can tell.

    Attributes:
        experiment: what is to be run.
        info: of its data set.
        shape: what its model sees.
        stored_size: pixels a side as images are stored.
        notes: what a person should know of it, a line each.
    """

    experiment: Experiment
    info: Info
    shape: tuple[int, ...]
    stored_size: int
    notes: tuple[str, ...] = ()

    @property
    def data_key(self) -> str:
        """The same for experiments that want the same examples in the same form."""
        e = self.experiment
        return repr((e.dataset, e.train_split, e.validation_split, e.test_split, e.data_dir, self.stored_size, _reading(e)))

    def load(self, note: Callable[[str], None]) -> Dataset:
        """The examples; `note` is told what is prepared first, or passed over. Errors are those of `sources.load`."""
        folder = data_path(self.experiment.data_dir)
        if not sources.is_prepared(self.experiment.dataset, folder):
            note(f"preparing {self.experiment.dataset} in {folder}")
        return load_data(self.experiment, folder, self.info, self.stored_size, note)


def check(experiment: Experiment, info: Info | None = None, begun: bool = False) -> Ready:
    """Raises UsageError, naming the flag, for what is wrong with an experiment that is valid and located in itself.

    Args:
        experiment: what is to be run.
        info: of its data set; None: as `describe_data` finds it.
        begun: its first weights do not matter any more.
    """
    info = info or describe_data(experiment, data_path(experiment.data_dir))
    size = inputs.image_size(experiment, info)
    shape = inputs.model_shape(experiment, info, size)
    stored = inputs.stored_size(experiment, size)
    examples = len(info.index["train"])
    steps = experiment.total_steps(examples)
    if not begun and experiment.extend:
        extension.find(experiment, steps, experiment.validation_steps(examples))
    elif not begun:
        check_weights(experiment, info, shape)
    return Ready(experiment, info, shape, stored, tuple(notes_of(experiment, examples, steps)))


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
    start = initial.absolute(experiment.init_from) if experiment.init_from else ""
    return dataclasses.replace(experiment, dataset=sources.located(experiment.dataset, folder), init_from=start)


def located(experiment: Experiment, folder: Path) -> Experiment:
    """`absolute`, with checksums behind the paths: it means the same data and weights everywhere.

    Raises UsageError where they are not there, or are not those that a checksum means.
    """
    experiment = absolute(experiment, folder)
    start = initial.located(experiment.init_from) if experiment.init_from else ""
    dataset = sources.identified(experiment.dataset, folder, experiment.fresh_cache)
    return dataclasses.replace(experiment, dataset=dataset, init_from=start)


def check_weights(experiment: Experiment, info: Info, shape: tuple[int, ...]) -> None:
    """Raises UsageError where --init_from does not fit the model, or where --freeze or --lr_scale name no parameter of it."""
    if not (experiment.init_from or experiment.freeze or experiment.lr_scale):
        return
    program = make_program(dataclasses.replace(experiment, freeze="", lr_scale=""), info)
    hparams = jax.tree.map(lambda column: column[0], stack_hparams([experiment], 1))
    with jax.enable_x64(experiment.dtype == "float64"):
        state = jax.eval_shape(partial(init_state, shape=shape, program=program), hparams)
    check_patterns(state.params, experiment.freeze, experiment.lr_scale)
    if experiment.init_from:
        initial.start(
            experiment.init_from, {"params": state.params, "batch_stats": state.batch_stats}, program.outputs.num_classes
        )


def describe_data(experiment: Experiment, folder: Path, absent_too: bool = False) -> Info:
    """An experiment's data set, with the examples to train, validate and test on. Errors are those of `sources.describe`."""
    return select(experiment, sources.describe(experiment.dataset, folder, absent_too, _reading(experiment)))


def load_data(
    experiment: Experiment, folder: Path, info: Info, image_size: int, note: Callable[[str], None] | None = None
) -> Dataset:
    """The examples of an experiment's data set; `note` is told what was passed over. Errors are those of `sources.load`."""
    return sources.load(experiment.dataset, folder, info, image_size, _reading(experiment), note)


def _reading(experiment: Experiment) -> Reading:
    return Reading(*(getattr(experiment, name) for name in Reading._fields))


def select(experiment: Experiment, info: Info) -> Info:
    """A data set with the examples that an experiment trains, validates and tests on."""
    return info.select(experiment.train_split, experiment.validation_split, experiment.test_split)


def default_name(experiment: Experiment) -> str:
    """The folder under runs/ of an experiment that no flag file names."""
    return f"{sources.short_name(experiment.dataset)}_{experiment.model}"
