"""Task: a record of pure functions that defines the targets, the losses, the metrics and the predictions of a task.

The step, the evaluation, the loop, the run directory, the tables and the plots know tasks through this record only.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from jax import Array

from percept_jax.data.spec import Feature
from percept_jax.errors import DataError, UsageError, first_line
from percept_jax.metrics import LOSS, Metric
from percept_jax.tasks.losses import Objective

Sums = dict[str, Array]


class Spec(Protocol):
    """The part of a data set's description that a task reads; see `DatasetSpec` and `Preprocessing`."""

    @property
    def features(self) -> Mapping[str, Feature]:
        """The features of an example, by name."""
        ...

    @property
    def input(self) -> str:
        """The name of the feature that a model takes as input."""
        ...

    @property
    def kind(self) -> str:
        """The kind of that feature."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """A name for each label; empty if the targets are values."""
        ...

    @property
    def mask_classes(self) -> Sequence[str]:
        """A name for each value of a mask; empty if there are no masks."""
        ...

    @property
    def words(self) -> Sequence[str]:
        """The word that each input token stands for; empty if inputs are not tokens."""
        ...


class OutputSpec(Protocol):
    """The part of a data set's description that a prediction needs: the class names, and how values were normalized."""

    @property
    def classes(self) -> Sequence[str]:
        """A name for each label."""
        ...

    @property
    def target_mean(self) -> Sequence[float]:
        """`[features]`, the mean that was subtracted from real-valued targets."""
        ...

    @property
    def target_inv_std(self) -> Sequence[float]:
        """`[features]`, the factor by which they were multiplied after that."""
        ...


class Outputs(NamedTuple):
    """The outputs of a model for one example. Each attribute is passed to the module if it declares a field of that name.

    Attributes:
        num_classes: outputs at each position: a logit for each class, or a number for each feature of a value.
        output_steps: time steps of the output; None: one output for each example, without a time axis.
        vocabulary: the number of different tokens if inputs are tokens; else 0.
        values: whether the outputs are values rather than logits.
    """

    num_classes: int
    output_steps: int | None = None
    vocabulary: int = 0
    values: bool = False


class Scale(NamedTuple):
    """The normalization of real-valued targets, `(value - mean) * inv_std`: arrays `[features]`, empty for labels."""

    mean: Array
    inv_std: Array


class Batch(NamedTuple):
    """A batch as a model and its task see it. A position is an example, or a time step if each step has a target.

    Attributes:
        inputs: `[batch, ...]`, normalized; tokens are unchanged.
        targets: `[batch, (time,) outputs]`, which the loss compares outputs with.
        features: the other features of the examples, by name, `[batch, ...]`, as in the data set; mixup does not change them.
        scale: the normalization of real-valued targets.
        lengths: int `[batch]`, the time steps of each sequence; None for images and points.
        mask: bool, whether each position counts; None: all count.
    """

    inputs: Array
    targets: Array
    features: Mapping[str, Array]
    scale: Scale
    lengths: Array | None = None
    mask: Array | None = None


class Task(NamedTuple):
    """A task as pure functions. `...` stands for `batch`, or `batch, time` if each time step has a target.

    Attributes:
        name: as in messages and provenance.json.
        suits: returns whether a data set implies this task.
        outputs: returns the outputs that a model must have for a data set.
        objectives: the losses that --loss can choose, by name; the first is the default. A loss that --loss does not know can
            only be the default.
        targets: maps (features, outputs, scale, dtype) to the targets `[..., outputs]` of the loss.
        distributions: whether targets are distributions over classes, so that they can be smoothed and mixed.
        mask: maps features to bool `[...]`, whether each position counts; None: all count.
        train_sums: maps (a model's outputs, batch) to named sums over the positions that count, from which the training metrics
            are computed. "loss", "positions" and "examples" are summed for every task.
        eval_sums: the same in an evaluation, of (outputs, batch, its mask, bool `[batch]`: whether each example is not padding).
            The mask is never None. A sum called "confusion" is `[true class, predicted class]`, and is written to confusion.csv.
        eval_rows: maps (outputs, batch) to arrays `[batch, ...]` with a row for each example of the split, for metrics that
            cannot be computed from sums.
        metrics: the metrics of a split.
        selects: names of the metrics that select the best step: the first, at a tie the next.
        prediction: maps (outputs, probabilities, names and scale, how many classes to show) of one example to the result of
            `predict` for it.
        line: returns that result as `predict` prints it after the name of the example.
        generates: whether the model's outputs for one time step can be its input at the next, so that it continues a prompt.
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
    generates: bool = False

    def objective(self, loss: str) -> Objective:
        """Returns the objective called `loss`; for "auto" the first one. Raises UsageError if the task does not have it."""
        if loss != "auto" and loss not in self.objectives:
            raise UsageError(f"not a loss of {self.name}; choose auto or {' or '.join(self.objectives)}", "loss")
        return next(iter(self.objectives.values())) if loss == "auto" else self.objectives[loss]

    def measure(self, totals: Mapping[str, Any], training: bool = False) -> dict[str, float]:
        """Returns the metrics of a split from its sums and rows, in the order in which they are declared.

        With `training`, returns only those that can be computed from `train_sums`. Raises DataError if one is not a number.
        """
        return {metric.name: _value(metric, totals) for metric in self.metrics if metric.training or not training}

    def selection_key(self, numbers: Mapping[str, Any]) -> tuple[float, ...]:
        """Returns the key of a validation's metrics: the step with the greatest key is the best."""
        signs = {metric.name: metric.sign for metric in self.metrics}
        return tuple(signs[name] * numbers[name] for name in self.selects)


def _value(metric: Metric, totals: Mapping[str, Any]) -> float:
    try:
        value = float(metric.compute(totals))
    except (ArithmeticError, LookupError, ValueError, TypeError) as error:
        raise DataError(f"the metric {metric.name} cannot be computed: {first_line(error)}") from error
    # A loss that is not finite is reported as such, with its step.
    if metric.name != LOSS.name and not math.isfinite(value):
        raise DataError(f"the metric {metric.name} is {value}; a metric is a finite number")
    return value
