"""Task: a record of pure functions that says what is asked of a model, and how its outputs are judged.

The step, the evaluation, the loop, the run directory, the tables and the plots know tasks through this record only.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from jax import Array

from percept_jax.data.spec import Feature
from percept_jax.metrics import Metric
from percept_jax.tasks.losses import Objective

Sums = dict[str, Array]


class Spec(Protocol):
    """What a task reads of the description of a data set; see `DatasetSpec` and `Preprocessing`."""

    @property
    def features(self) -> Mapping[str, Feature]:
        """What an example has, by name."""
        ...

    @property
    def input(self) -> str:
        """The name of the feature that a model sees."""
        ...

    @property
    def kind(self) -> str:
        """What that is."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """A name for each label; none where the targets are values."""
        ...

    @property
    def words(self) -> Sequence[str]:
        """What each token of an input stands for; none where inputs are no tokens."""
        ...


class OutputSpec(Protocol):
    """What a prediction needs to know of a data set: the names of its classes, and how its values were normalized."""

    @property
    def classes(self) -> Sequence[str]:
        """A name for each label."""
        ...

    @property
    def target_mean(self) -> Sequence[float]:
        """`[features]`, what was subtracted from targets that are values."""
        ...

    @property
    def target_inv_std(self) -> Sequence[float]:
        """`[features]`, what they were multiplied by then."""
        ...


class Outputs(NamedTuple):
    """What a model writes for one example: fields of its module, where it declares them.

    Attributes:
        num_classes: numbers at each position: a logit for each class, or one for each feature of a value.
        output_steps: time steps of a sequence of outputs; None: one output an example, without an axis of time.
        vocabulary: distinct tokens of inputs that are tokens; else 0.
        values: whether the outputs are values, rather than logits.
    """

    num_classes: int
    output_steps: int | None = None
    vocabulary: int = 0
    values: bool = False


class Scale(NamedTuple):
    """How targets that are values are normalized: `(value - mean) * inv_std`, arrays `[features]`; empty for labels."""

    mean: Array
    inv_std: Array


class Batch(NamedTuple):
    """Examples as a model and its task see them. A position is an example, or a time step where each step has a target.

    Attributes:
        inputs: `[batch, ...]`, normalized; tokens as they are.
        targets: what the loss compares outputs with, `[batch, (time,) outputs]`.
        features: what else the examples have, by name, `[batch, ...]`, as the data set has it; mixup leaves it as it is.
        scale: how targets that are values were normalized.
        lengths: int `[batch]`, the time steps of each sequence; None for images and points.
        mask: bool, one for each position, those that count; None: all of them.
    """

    inputs: Array
    targets: Array
    features: Mapping[str, Array]
    scale: Scale
    lengths: Array | None = None
    mask: Array | None = None


class Task(NamedTuple):
    """What is asked of a model. `...` stands for `batch`, or `batch, time` where each time step has a target.

    Attributes:
        name: as messages and provenance.json have it.
        suits: whether a data set asks for this task.
        outputs: what a model has to write for a data set.
        objectives: the losses that --loss can choose, by name. A task whose loss is its own names it like itself; it is
            taken whatever --loss says.
        targets: (features, outputs, scale, dtype) to what the loss compares a model's outputs with, `[..., outputs]`.
        distributions: whether these are distributions over classes, so that they can be smoothed and mixed.
        mask: features to bool `[...]`, the positions that count; None: all of them.
        train_sums: (a model's outputs, batch) to sums over the positions that count, each with a name of its own, from which
            the metrics of training are computed. "loss", "positions" and "examples" are summed for every task.
        eval_sums: the same for a split that is evaluated, of (outputs, batch, its mask, bool `[batch]`: whether an example is
            one, and does not just fill the batch up). The mask is never None. A sum called "confusion" is `[true class,
            predicted class]`, and is written to confusion.csv.
        eval_rows: (outputs, batch) to arrays `[batch, ...]`, a row for each example of the split, for metrics that no sums give.
        metrics: what a split is measured by.
        selects: names of the metrics that choose the best step: the first, at a tie the next.
        prediction: (outputs, probabilities, names and scale, how many classes to show) of one example to what `predict` returns
            for it.
        line: that as `predict` prints it, behind the name of the example.
    """

    name: str
    suits: Callable[[Spec], bool]
    outputs: Callable[[Spec], Outputs]
    objectives: Mapping[str, Objective]
    targets: Callable[[Mapping[str, Array], Outputs, Scale, Any], Array]
    distributions: bool
    mask: Callable[[Mapping[str, Array]], Array | None] | None
    train_sums: Callable[[Array, Batch], Sums]
    eval_sums: Callable[[Array, Batch, Array, Array], Sums]
    metrics: tuple[Metric, ...]
    selects: tuple[str, ...]
    prediction: Callable[[np.ndarray, np.ndarray, OutputSpec, int], dict[str, Any]]
    line: Callable[[Mapping[str, Any]], str]
    eval_rows: Callable[[Array, Batch], Sums] | None = None

    def objective(self, loss: str) -> Objective:
        """Returns the loss that this task is trained with under --loss; `objectives` must have it, or the task's own."""
        return self.objectives.get(loss) or self.objectives[self.name]

    def measure(self, totals: Mapping[str, Any], training: bool = False) -> dict[str, float]:
        """Returns the metrics of a split from its sums and rows, in the order in which they are declared.

        With `training` only those that `train_sums` gives.
        """
        return {metric.name: metric.compute(totals) for metric in self.metrics if metric.training or not training}

    def selection_key(self, numbers: Mapping[str, Any]) -> tuple[float, ...]:
        """Returns what the best step is chosen by: the greatest of the metrics of all validations."""
        signs = {metric.name: metric.sign for metric in self.metrics}
        return tuple(signs[name] * numbers[name] for name in self.selects)
