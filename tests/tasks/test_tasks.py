"""Tasks as records: what they measure, and which of them a data set gets."""

import jax.numpy as jnp
import numpy as np
import pytest

from percept_jax.data.spec import DatasetSpec, Feature, image_spec
from percept_jax.errors import DataError, UsageError
from percept_jax.metrics import LOSS, Metric
from percept_jax.tasks import TASKS, task_of
from percept_jax.tasks.base import Batch, Scale
from percept_jax.tasks.classification import CLASSIFICATION
from percept_jax.tasks.tagging import TAGGING

DIGITS = image_spec((8, 8, 1), tuple("0123456789"), {"train": 9})


def test_an_example_that_fills_up_a_batch_is_no_perfect_sequence():
    labels = np.array([[0, 1, -1], [1, 1, 0], [0, 0, 0]])
    logits = np.eye(2)[np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0]])]
    present = np.array([True, True, False])
    batch = Batch(jnp.zeros((3, 3)), jnp.zeros((3, 3, 2)), {"label": labels}, Scale(jnp.zeros(0), jnp.zeros(0)))
    found = TAGGING.eval_sums(logits, batch, (labels >= 0) & present[:, None], present)
    assert (found["all_correct"], found["correct"]) == (1, 4)


def test_a_data_set_gets_the_first_task_that_suits_it_or_the_one_asked_for(monkeypatch):
    other = CLASSIFICATION._replace(name="other")
    monkeypatch.setitem(TASKS, "other", other)
    assert task_of(DIGITS) is CLASSIFICATION
    assert task_of(DIGITS, "other") is other
    with pytest.raises(UsageError, match="--task: forecasting does not suit a data set whose examples have image, label"):
        task_of(DIGITS, "forecasting")
    with pytest.raises(UsageError, match="--task: no task suits a data set whose examples have image"):
        task_of(DatasetSpec({"image": Feature((8, 8, 1), "uint8")}, (), {"train": 9}))


@pytest.mark.parametrize(("change", "said"), [
    ({"metrics": (LOSS, LOSS)}, "there are two metrics called loss"),
    ({"metrics": CLASSIFICATION.metrics[1:], "selects": ("accuracy",)}, "it has no metric called loss"),
    ({"selects": ("acuracy",)}, "acuracy, which selects the best step, is none of its metrics"),
    ({"objectives": {}}, "it has no objective"),
])  # fmt: skip
def test_a_task_that_contradicts_itself_is_refused_before_anything_runs(change, said, monkeypatch):
    monkeypatch.setitem(TASKS, "mine", CLASSIFICATION._replace(name="mine", **change))
    with pytest.raises(UsageError, match=f"--task: mine is not a valid task: {said}"):
        task_of(DIGITS, "mine")


@pytest.mark.parametrize(("compute", "said"), [
    (lambda totals: totals["loss"] / totals["none"], "the metric mine cannot be computed: 'none'"),
    (lambda totals: 1 / 0, "the metric mine cannot be computed: division by zero"),
    (lambda totals: np.float32("nan"), "the metric mine is nan; a metric is a finite number"),
])  # fmt: skip
def test_a_metric_that_is_no_number_is_told_by_name(compute, said):
    task = CLASSIFICATION._replace(metrics=(LOSS, Metric("mine", True, "z.4f", compute)))
    with pytest.raises(DataError, match=said):
        task.measure({"loss": 1.0, "positions": 2})


def test_a_metric_may_be_any_number_of_numpy_s():
    task = CLASSIFICATION._replace(metrics=(LOSS, Metric("mine", True, "z.4f", lambda totals: np.median(totals["rows"]))))
    found = task.measure({"loss": 1.0, "positions": 2, "rows": np.array([1, 2, 4], np.float32)})
    assert found == {"loss": 0.5, "mine": 2.0}
    assert type(found["mine"]) is float
