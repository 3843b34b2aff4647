"""Metrics: each says itself which way it is better, and nothing is compared by what is none."""

import json
import math

import pytest

from percept_jax import metrics
from percept_jax.analysis import statistics
from percept_jax.analysis.comparison import Arm, Outcome
from percept_jax.analysis.load import load
from percept_jax.cli.main import main
from percept_jax.errors import UsageError
from percept_jax.experiment import Experiment
from percept_jax.records import MetricRecord, checked
from percept_jax.sweeps import plan
from percept_jax.tasks import TASKS
from percept_jax.training.reporter import summary

COUNTS = {"examples", "positions"}
ONES = {"loss": 1.0, "positions": 1, "examples": 1, "correct": 1, "top5_correct": 1, "all_correct": 1, "squared_error": 1.0}
ONES |= {"iou": 0.5, "found": 1, "localized": 1, "boxed": 1}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_task_declares_each_of_its_metrics_once(task):
    names = [metric.name for metric in task.metrics]
    assert list(task.measure(ONES | {"values": 1})) == names
    assert len(set(names)) == len(names)
    assert not COUNTS & set(names)
    assert set(task.selects) <= set(names)
    assert names[0] == "loss"
    assert all(metric.of in ("", *COUNTS) for metric in task.metrics)
    assert set(task.measure(ONES, training=True)) == {metric.name for metric in task.metrics if metric.training}


def test_metrics_are_computed_from_sums():
    sums = {"loss": 6.0, "positions": 12, "examples": 4, "correct": 9, "top5_correct": 11, "all_correct": 1}
    shares = {"loss": 0.5, "accuracy": 0.75, "top5_accuracy": 11 / 12}
    assert TASKS["classification"].measure(sums) == shares
    assert TASKS["tagging"].measure(sums) == shares | {"sequence_accuracy": 0.25}
    assert TASKS["language_modeling"].measure(sums) == shares | {"bits_per_character": 0.5 / math.log(2)}
    assert TASKS["classification"].measure(sums, training=True) == {"loss": 0.5, "accuracy": 0.75}
    values = {"loss": 6.0, "positions": 12, "examples": 12, "squared_error": 54.0, "values": 24}
    assert TASKS["forecasting"].measure(values) == {"loss": 0.5, "rmse": 1.5}
    assert TASKS["forecasting"].measure(values, training=True) == {"loss": 0.5}


def test_the_headline_and_the_choice_of_the_best_step_are_each_task_s():
    headlines = [metrics.headline(task.metrics, [m.name for m in task.metrics]).name for task in TASKS.values()]
    assert headlines == ["iou", "accuracy", "accuracy", "bits_per_character", "rmse"]
    numbers = {"loss": 2.0, "accuracy": 0.5, "bits_per_character": 3.0, "rmse": 7.0, "iou": 0.25}
    assert [task.selection_key(numbers) for task in TASKS.values()] == [(0.25, -2.0), *[(0.5, -2.0)] * 2, (-2.0,), (-2.0,)]
    with pytest.raises(UsageError, match="--metric: examples: none of these is a metric; the metrics are loss, accuracy"):
        metrics.headline(metrics.EARLIER, {"examples": 3})


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_what_a_file_records_of_metrics_is_read_back(task):
    record = json.loads(json.dumps({"metrics": metrics.recorded(task.metrics)}))
    checked(record["metrics"], list[MetricRecord], "provenance.json")
    blank = metrics.Metric("", True, "").compute
    assert metrics.read(record) == tuple(metric._replace(compute=blank, training=False) for metric in task.metrics)
    with pytest.raises(ValueError, match="cannot be computed"):
        metrics.read(record)[0].compute(ONES)


def test_a_file_without_metrics_is_one_of_an_earlier_version():
    assert metrics.read({}) == metrics.EARLIER
    now = {metric.name: metric for task in TASKS.values() for metric in task.metrics}
    for metric in metrics.EARLIER:
        assert metrics.recorded([metric]) == metrics.recorded([now[metric.name]])


def test_what_a_person_is_shown_keeps_its_order():
    classes, text = (TASKS[name].metrics for name in ("classification", "language_modeling"))
    assert summary({"examples": 1, "accuracy": 0.5, "loss": 2}, classes) == "loss 2.0000 accuracy 0.5000"
    assert summary({"bits_per_character": 3, "loss": 2, "top5_accuracy": 1, "accuracy": 1}, text) == (
        "loss 2.0000 accuracy 1.0000 bits per character 3.0000"
    )


@pytest.mark.parametrize("name", ["examples", "inaccuracy", "mean_accuracy", "positions", "F1", "", "loss ", "x/los"])
def test_what_is_no_metric_is_not_compared(name):
    for text in (name, f"test/{name}"):
        with pytest.raises(UsageError, match=r"--metric: .* is not a metric.*choose from .*loss"):
            metrics.find(text, metrics.EARLIER)
    with pytest.raises(UsageError, match="is not a metric"):
        statistics.compare("table", [Arm("a", {}, [])], f"test/{name}", "a")


def test_a_table_writes_shares_to_four_places_and_the_rest_to_four_digits():
    accuracy, loss, rmse = (metrics.find(name, metrics.EARLIER) for name in ("test/accuracy", "loss", "rmse"))
    assert [accuracy.written(x) for x in (0.5, -1e-9, 1)] == ["0.5000", "0.0000", "1.0000"]
    assert [loss.written(x) for x in (1234.5, 0.012345, 2)] == ["1234", "0.01235", "2.000"]
    assert rmse.written(0.5, "+") == "+0.5000"


@pytest.mark.parametrize("value", [None, "0.9", math.nan, math.inf, True, [0.9], {}, 10**400])
def test_a_value_that_is_no_finite_number_is_none(value):
    assert metrics.as_number(value) is None
    done = {"status": "done", "test": {"accuracy": value}, "validation": {"accuracy": value}}
    assert statistics.value(Outcome(0, None, "done", done), "test/accuracy") is None
    good = {"status": "done", "validation": {"accuracy": 0.1}}
    bad, fine = (plan.TrialPlan(name, "a", Experiment()) for name in "bg")
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
    with pytest.raises(UsageError, match="--metric: 'accuracy' has no split"):
        load(paths[1:], "accuracy")
    for metric in ("test/mean_iou", "test/examples", "validation/mean_iou"):
        with pytest.raises(UsageError, match=f"--metric: '{metric}' is not a metric"):
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
