"""Metrics: each says itself which way it is better, and nothing is compared by what is none."""

import json
import math

import numpy as np
import pytest

from percept_jax import metrics
from percept_jax.__main__ import main
from percept_jax.errors import UsageError
from percept_jax.experiment import Experiment
from percept_jax.sweeps import plan, statistics
from percept_jax.sweeps.compare import load
from percept_jax.sweeps.comparison import Outcome
from percept_jax.task import Task
from percept_jax.training import evaluation
from percept_jax.training.progress import said_of
from percept_jax.training.step import EvalSums

TASKS = [Task(10), Task(10, output_steps=3), Task(10, output_steps=3, vocabulary=10, generates=True), Task(2, values=True)]
COUNTS = {"examples", "positions"}


@pytest.mark.parametrize("task", TASKS)
def test_every_number_that_an_evaluation_reports_is_a_metric(task):
    found = evaluation.metrics(EvalSums(*(np.ones(1) for _ in EvalSums._fields)), 0, task)
    assert set(found) - COUNTS <= set(metrics.METRICS)
    assert not COUNTS & set(metrics.METRICS)
    assert metrics.headline(found) == metrics.headline(evaluation.metric_names(task))


def test_the_headline_and_the_choice_of_the_best_step_are_each_task_s():
    names = [evaluation.metric_names(task) for task in TASKS]
    assert [metrics.headline(found) for found in names] == ["accuracy", "accuracy", "bits_per_character", "rmse"]
    assert metrics.rank({"loss": 2.0, "accuracy": 0.5}) == (0.5, -2.0)
    assert metrics.rank({"loss": 2.0, "accuracy": 0.5, "bits_per_character": 3.0}) == (-2.0,)
    assert metrics.rank({"loss": 2.0, "rmse": 7.0}) == (-2.0,)
    assert metrics.rank({"loss": 2.0}) == (-2.0,)
    with pytest.raises(UsageError, match="--metric: examples: there is no metric among it; there are loss, accuracy"):
        metrics.headline({"examples": 3})


def test_what_a_person_is_told_keeps_its_order():
    assert said_of({"examples": 1, "accuracy": 0.5, "loss": 2}) == "loss 2.0000 accuracy 0.5000"
    assert said_of({"bits_per_character": 3, "loss": 2, "top5_accuracy": 1, "accuracy": 1}) == (
        "loss 2.0000 accuracy 1.0000 bits per character 3.0000"
    )


@pytest.mark.parametrize("name", ["examples", "inaccuracy", "mean_accuracy", "positions", "F1", "", "loss ", "x/loss"])
def test_what_is_no_metric_is_not_compared(name):
    for text in (name, f"test/{name}"):
        if text != "x/loss":  # the split is not its business
            with pytest.raises(UsageError, match=r"--metric: .* is no metric.*choose from .*loss"):
                metrics.metric(text)
    with pytest.raises(UsageError, match="is no metric"):
        statistics.better(f"test/{name}")


def test_a_table_writes_shares_to_four_places_and_the_rest_to_four_digits():
    assert [metrics.written("test/accuracy", x) for x in (0.5, -1e-9, 1)] == ["0.5000", "0.0000", "1.0000"]
    assert [metrics.written("loss", x) for x in (1234.5, 0.012345, 2)] == ["1234", "0.01235", "2.000"]
    assert metrics.written("rmse", 0.5, "+") == "+0.5000"


@pytest.mark.parametrize("value", [None, "0.9", math.nan, math.inf, True, [0.9], {}, 10**400])
def test_a_value_that_is_no_finite_number_is_none(value):
    assert metrics.as_number(value) is None
    done = {"status": "done", "test": {"accuracy": value}, "validation": {"accuracy": value}}
    assert statistics.value(Outcome(0, None, "done", done), "test/accuracy") is None
    good = {"status": "done", "validation": {"accuracy": 0.1}}
    bad, fine = (plan.Planned(name, "a", Experiment()) for name in "bg")
    assert plan.best([(bad, done), (fine, good)], "test/accuracy", 1) is fine
    assert plan.best([(bad, done), (bad, {"status": "done", "validation": {}})], "test/accuracy", 1) is None


@pytest.mark.parametrize("numbers", [None, [], 3, "accuracy"])
def test_a_split_that_is_no_object_has_no_value(numbers):
    assert statistics.value(Outcome(0, None, "done", {"test": numbers}), "test/accuracy") is None


def test_a_comparison_by_what_a_foreign_result_has_is_refused(tmp_path):
    for seed in range(2):
        path = tmp_path / str(seed)
        path.mkdir()
        numbers = {"loss": 0.5, "accuracy": 0.5, "mean_iou": 0.3, "examples": 100}
        result = {"status": "done", "validation": numbers, "test": numbers, "seconds": {"train": 1.0}}
        (path / "result.json").write_text(json.dumps(result))
        (path / "provenance.json").write_text(json.dumps({"git_sha": "abc", "restarts": []}))
        (path / "run.flags").write_text(f"--model=mlp\n--seed={seed}\n")
    paths = [tmp_path / "0", tmp_path / "1"]
    assert load(paths).metric == "test/accuracy"
    (tmp_path / "1" / "result.json").unlink()
    with pytest.raises(UsageError, match="--metric: 'accuracy' is no number of a split"):
        load(paths[1:], "accuracy")
    for metric in ("test/mean_iou", "test/examples", "validation/mean_iou"):
        with pytest.raises(UsageError, match=f"--metric: '{metric}' is no metric"):
            load(paths, metric)


@pytest.mark.parametrize(
    "metric", ["foo/accuracy", "accuracy", "test/examples", "train/accuracy", "test/rmse", "test/mean_accuracy"]
)
def test_a_sweep_by_what_no_trial_will_report_is_refused_before_it_begins(tmp_path, capsys, metric):
    flags = ["--sweep", "--model=mlp", "--steps=1", "--devices=1", "--learning_rate={0.1,0.2}", f"--run_dir={tmp_path / 'sweep'}"]
    assert main([*flags, f"--metric={metric}"]) == 2
    err = capsys.readouterr().err
    assert "--metric: " in err
    assert repr(metric) in err
    assert not (tmp_path / "sweep").exists()
