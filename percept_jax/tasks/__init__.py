"""TASKS: the tasks by name.

To add a task, write a file with its `Task` record, and add one line to TASKS.
"""

from percept_jax.tasks.base import Spec, Task
from percept_jax.tasks.classification import CLASSIFICATION
from percept_jax.tasks.forecasting import FORECASTING
from percept_jax.tasks.language_modeling import LANGUAGE_MODELING
from percept_jax.tasks.tagging import TAGGING

TASKS: dict[str, Task] = {
    "classification": CLASSIFICATION,
    "tagging": TAGGING,
    "language_modeling": LANGUAGE_MODELING,
    "forecasting": FORECASTING,
}


def task_of(spec: Spec) -> Task:
    """Returns the task that the features of a data set imply: the last one in TASKS that suits the data set.

    A task that a user adds therefore takes precedence over those of this package. Raises LookupError if no task suits.
    """
    for task in reversed(TASKS.values()):
        if task.suits(spec):
            return task
    raise LookupError(f"no task suits a data set whose examples have {', '.join(spec.features)}")
