"""TASKS: the tasks by name.

To add a task, write a file with its `Task` record, and add one line to TASKS.
"""

import dataclasses
from collections import Counter

from percept_jax.errors import UsageError
from percept_jax.knobs import knob
from percept_jax.tasks.base import Spec, Task
from percept_jax.tasks.classification import CLASSIFICATION
from percept_jax.tasks.forecasting import FORECASTING
from percept_jax.tasks.language_modeling import LANGUAGE_MODELING
from percept_jax.tasks.localization import LOCALIZATION
from percept_jax.tasks.tagging import TAGGING
from percept_jax.validation import unknown

TASKS: dict[str, Task] = {
    "localization": LOCALIZATION,
    "classification": CLASSIFICATION,
    "tagging": TAGGING,
    "language_modeling": LANGUAGE_MODELING,
    "forecasting": FORECASTING,
}


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """The task of a run."""

    task: str = knob("auto", "static", "model", "what is asked of the model; auto: the first task that suits the data set")


def task_of(spec: Spec, name: str = "auto") -> Task:
    """Returns the task called `name`; for "auto" the first one in TASKS that suits the data set.

    A task that is added at the end of TASKS therefore changes no run that does not ask for it. Raises UsageError if the task is
    unknown, does not suit the data set or contradicts itself.
    """
    if name == "auto":
        chosen = next((task for task in TASKS.values() if task.suits(spec)), None)
        if chosen is None:
            raise UsageError(f"no task suits a data set whose examples have {', '.join(spec.features)}", "task")
    elif name not in TASKS:
        raise UsageError(unknown(name, ["auto", *TASKS]), "task")
    else:
        chosen = TASKS[name]
        if not chosen.suits(spec):
            raise UsageError(f"{name} does not suit a data set whose examples have {', '.join(spec.features)}", "task")
    _check(chosen)
    return chosen


def _check(task: Task) -> None:
    """Raises UsageError unless a task's metrics have names of their own, one of them is "loss", and they select the best step."""
    names = Counter(metric.name for metric in task.metrics)
    problems = [f"there are two metrics called {name}" for name, count in names.items() if count > 1]
    problems += [] if "loss" in names else ["it has no metric called loss"]
    problems += [f"{name}, which selects the best step, is none of its metrics" for name in task.selects if name not in names]
    problems += [] if task.objectives else ["it has no objective"]
    if problems:
        raise UsageError(f"{task.name} is not a valid task: {'; '.join(problems)}", "task")
