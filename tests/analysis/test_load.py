"""What is read from sweeps and run directories."""

import csv
import io
import json

import pytest
from helpers.arms import lines, result

from percept_jax.analysis import tables
from percept_jax.analysis.load import load
from percept_jax.analysis.statistics import (
    compare,
)
from percept_jax.errors import StorageError, UsageError


def make_run(path, result=None, lines=None, **provenance):
    path.mkdir(parents=True)
    (path / "provenance.json").write_text(json.dumps({"git_sha": "abc", "restarts": []} | provenance))
    if lines:
        (path / "run.flags").write_text("\n".join(lines) + "\n")
    if result:
        (path / "result.json").write_text(json.dumps(result))
    return path


def make_sweep(path, name="depth", failures=None, metric="test/accuracy", **arms):
    """A sweep of arms, each a learning rate and trials: seed -> id -> result (None: without one)."""
    plan = {"name": name, "metric": metric, "baseline": next(iter(arms)), "programs": {}, "arms": []}
    for arm, (rate, trials) in arms.items():
        named = {str(seed): trial and trial[0] for seed, trial in enumerate(trials)}
        plan["arms"].append({"name": arm, "flags": ["--model=mlp", f"--learning_rate={rate}"], "trials": named})
        for trial in trials:
            if trial and trial[1]:
                make_run(path / "trials" / trial[0], trial[1])
    path.mkdir(parents=True, exist_ok=True)
    (path / "plan.json").write_text(json.dumps(plan))
    if failures:
        (path / "failures.json").write_text(json.dumps(failures))
    return path


def test_a_sweep_is_read_with_what_became_of_each_trial(tmp_path):
    trials = [("a0", result(0.9)), ("a1", result(0, "diverged")), ("a2", None), ("a3", None), None]
    sweep = make_sweep(tmp_path / "s", baseline=("0.1", trials), fast=("0.5", []), failures={"a2": {"error": "no memory"}})
    make_run(sweep / "trials" / "a3", restarts=[{"git_sha": "def"}, {"git_sha": "abc"}], pack=8)
    read = load([sweep])
    assert (read.name, read.metric, read.baseline) == ("depth", "test/accuracy", "baseline")
    assert [arm.name for arm in read.arms] == ["baseline", "fast"]
    assert read.arms[0].flags == {"model": "mlp", "learning_rate": "0.1"}
    outcomes = read.arms[0].outcomes
    assert [o.status for o in outcomes] == ["done", "diverged", "failed", "missing", "missing"]
    assert [o.error for o in outcomes] == ["", "", "no memory", "", ""]
    assert [o.pack for o in outcomes] == [1, 1, None, 8, None]
    assert [o.git_sha for o in outcomes] == ["abc", "abc", None, "abc+def", None]
    assert outcomes[0].path == sweep / "trials" / "a0"
    assert compare(*read).rows[0].values == {0: 0.9}


def test_a_trial_may_be_a_link_to_one_of_another_sweep(tmp_path):
    one = make_sweep(tmp_path / "one", baseline=("0.1", [("a0", result(0.9))]))
    two = make_sweep(tmp_path / "two", baseline=("0.1", [("a0", None)]))
    (two / "trials").mkdir()
    (two / "trials" / "a0").symlink_to(one / "trials" / "a0")
    assert load([two]).arms[0].outcomes[0].result["test"]["accuracy"] == 0.9


def test_arms_of_several_sweeps_are_one_where_their_flags_are(tmp_path):
    one = make_sweep(tmp_path / "1", "one", baseline=("0.1", [("a0", result(0.9)), ("a1", None)]), fast=("0.5", []))
    two = make_sweep(tmp_path / "2", "two", start=("0.1", [("b0", None), ("b1", result(0.8))]), fast=("0.7", []))
    read = load([one, two])
    assert (read.name, read.baseline) == ("one + two", "baseline")
    assert [arm.name for arm in read.arms] == ["baseline", "one: fast", "two: fast"]
    assert {o.seed: o.result["test"]["accuracy"] for o in read.arms[0].outcomes} == {0: 0.9, 1: 0.8}


def test_two_sweeps_of_one_name_and_other_baselines_stay_apart(tmp_path):
    sweeps = [make_sweep(tmp_path / rate, baseline=(rate, [("a0", result(0.9))])) for rate in ("0.1", "0.2")]
    read = load(sweeps)
    assert [arm.name for arm in read.arms] == [f"{sweep}: baseline" for sweep in sweeps]
    assert read.baseline == read.arms[0].name
    assert load(sweeps, baseline=read.arms[1].name).baseline == read.arms[1].name


def test_run_directories_are_grouped_by_their_flags(tmp_path):
    paths = [
        make_run(tmp_path / "mine" / f"{rate}-{momentum}-{seed}", result(0.9), lines(seed, learning_rate=rate, momentum=momentum))
        for rate, momentum in (("0.2", "0.9"), ("0.1", "0.9"), ("0.1", "0"))
        for seed in (0, 1)
    ]
    read = load(paths)
    assert (read.name, read.metric, read.baseline) == ("mine", "test/accuracy", "baseline")
    assert [arm.name for arm in read.arms] == ["baseline", "learning_rate=0.1", "learning_rate=0.1, momentum=0"]
    assert [[o.seed for o in arm.outcomes] for arm in read.arms] == [[0, 1]] * 3
    assert "seed" not in read.arms[0].flags
    alone = load(paths[:2])
    assert ([arm.name for arm in alone.arms], alone.baseline) == (["mine"], "mine")


def test_runs_of_other_models_are_named_by_what_tells_them_apart(tmp_path):
    def names(*settings):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return [arm.name for arm in load([make_run(folder / str(i), None, lines(**s)) for i, s in enumerate(settings)]).arms]

    lstm = {"model": "lstm", "reading": "rows"}
    assert names({}, lstm | {"hidden": "64"}) == ["baseline", "model=lstm"]
    assert names({}, lstm | {"hidden": "64"}, lstm | {"hidden": "32"}) == [
        "baseline",
        "model=lstm, hidden=64",
        "model=lstm, hidden=32",
    ]
    assert names(lstm, {"model": "lstm"}) == ["baseline", "reading="]


def test_the_headline_of_runs_is_what_their_task_is_judged_by(tmp_path):
    forecast = result(0) | {"test": {"loss": 0.1, "rmse": 2.0}}
    language = result(0) | {"test": {"loss": 1.0, "accuracy": 0.5, "bits_per_character": 1.44}}
    for name, found, metric in (("f", forecast, "rmse"), ("l", language, "bits_per_character"), ("n", None, "loss")):
        assert load([make_run(tmp_path / name, found, lines())]).metric == f"test/{metric}"


def test_a_sweep_and_runs_compare_together(tmp_path):
    sweep = make_sweep(tmp_path / "s", baseline=("0.1", [("a0", result(0.9))]))
    run = make_run(tmp_path / "mine" / "r", result(0.8), lines(0, learning_rate="0.3"))
    rows = compare(*load([run, sweep])).rows
    assert [(row.arm, row.mean) for row in rows] == [("baseline", 0.9), ("mine", 0.8)]
    assert rows[1].changed == {"learning_rate": "0.3", "momentum": "0.9"}


def test_what_cannot_be_compared_is_said_in_a_line(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty: neither a sweep nor a run directory"):
        load([tmp_path / "empty"])
    sweep = make_sweep(tmp_path / "s", baseline=("0.1", [("a0", result(0.9))]))
    with pytest.raises(UsageError, match=r"--metric: no finished trial reports 'test/rmse'; they report .*test/accuracy"):
        load([sweep], metric="test/rmse")
    with pytest.raises(UsageError, match=r"--metric: no finished trial reports 'accuracy'"):
        load([sweep], metric="accuracy")
    with pytest.raises(UsageError, match=r"--baseline: unknown name 'basline'; did you mean 'baseline'\?"):
        load([sweep], baseline="basline")
    assert load([sweep], metric="validation/loss", baseline="baseline").metric == "validation/loss"


@pytest.mark.parametrize(
    "content", ['{"status"', "{}", "[]", "5", "null", '{"status": "well", "validation": null, "test": null}']
)
@pytest.mark.parametrize("file", ["result.json", "provenance.json"])
def test_a_damaged_trial_costs_itself_and_is_counted(tmp_path, file, content):
    sweep = make_sweep(tmp_path / "s", baseline=("0.1", [("a0", result(0.9)), ("a1", result(0.8))]))
    (sweep / "trials" / "a0" / file).write_text(content)
    c = compare(*load([sweep]))
    if content == "{}" and file == "provenance.json":  # nothing in it is asked for
        return
    if file == "provenance.json" and content.startswith('{"status": '):
        return
    assert [(row.damaged, row.values) for row in c.rows] == [(1, {1: 0.8})]
    assert "1/2 (1 damaged)" in tables.markdown(c)
    assert any(note.startswith(f"1 trial of 2 damaged; the first: {sweep}/trials/a0/{file}: ") for note in c.notes), c.notes


@pytest.mark.parametrize("content", ["", "{", "[]", "5", "null", '{"name": "x"}', "[" * 100_000])
def test_a_damaged_plan_is_a_line_and_damaged_failures_tell_nothing(tmp_path, content):
    sweep = make_sweep(tmp_path / "s", baseline=("0.1", [("a0", result(0.9))]))
    (sweep / "failures.json").write_text(content)
    assert compare(*load([sweep])).rows[0].failed == 0
    (sweep / "plan.json").write_text(content)
    with pytest.raises(StorageError, match=r"plan\.json: ") as error:
        load([sweep])
    assert "\n" not in str(error.value)


def test_a_sweep_without_a_finished_trial_is_a_table_of_dashes(tmp_path):
    sweep = make_sweep(tmp_path / "s", baseline=("0.1", [("a0", None)]), fast=("0.5", [None]))
    c = compare(*load([sweep]))
    assert "| fast | — | 0/1 | — | — | — | — | learning_rate=0.5 |" in tables.markdown(c)
    assert "0/1" in tables.latex(c)
    assert "0/1" in tables.plain(c, 80)
    assert list(csv.DictReader(io.StringIO(tables.csv_text(c))))[1]["mean"] == ""
