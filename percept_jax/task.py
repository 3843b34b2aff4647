"""What a data set asks of a model."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Task(NamedTuple):
    """The outputs that are wanted, and the inputs that there are.

    Attributes:
        num_classes: outputs at a time: a logit for each class, or a number for each feature of a value.
        output_steps: how often: None for once an example, else the steps of a sequence of outputs.
        vocabulary: distinct tokens of inputs that are tokens; else 0.
        values: whether the targets are values, not classes.
        generates: whether each step's target is the next token of its input: a language model.
    """

    num_classes: int
    output_steps: int | None = None
    vocabulary: int = 0
    values: bool = False
    generates: bool = False

    @property
    def fields(self) -> dict[str, Any]:
        """What a module is told of it, see `models.build`."""
        return {name: value for name, value in self._asdict().items() if name != "generates"}


def describe(classes: Sequence[str], target_shape: Sequence[int], words: Sequence[str], text: bool) -> Task:
    """The task of targets that have these classes (none: values) and this shape, and of inputs of these words, if any."""
    steps = target_shape if classes else target_shape[:-1]
    return Task(len(classes) or target_shape[-1], steps[0] if steps else None, len(words), not classes, text)
