"""Comparisons: the statistics against SciPy and by hand, the tables, and what is read from sweeps and run directories."""

import csv
import io
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from percept_jax.analysis import tables
from percept_jax.analysis.comparison import Arm, Outcome
from percept_jax.analysis.load import load
from percept_jax.analysis.statistics import (
    compare,
    holm,
    least_sign_flip,
    paired_t,
    seeds_needed,
    sign_flip,
    t_interval,
)
from percept_jax.errors import StorageError, UsageError
from percept_jax.metrics import EARLIER, find

FLAGS = {"model": "mlp", "learning_rate": "0.1", "momentum": "0.9"}
DIFFERENCES = st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=1, max_size=8)


def result(accuracy, status="done", seconds=3.0):
    numbers = {"loss": 0.5, "accuracy": accuracy, "examples": 100}
    test = numbers if status == "done" else None
    return {"status": status, "validation": numbers, "test": test, "seconds": {"start": 1.0, "train": seconds - 1}}


def arm(name, accuracies, **flags):
    """An arm of done trials, of seeds 0, 1, ...; None: a missing one."""
    outcomes = [
        Outcome(seed, None, "missing") if x is None else Outcome(seed, None, "done", result(x), "abc", 1)
        for seed, x in enumerate(accuracies)
    ]
    return Arm(name, FLAGS | flags, outcomes)


def table(*arms, metric="test/accuracy"):
    return compare("digits", arms, metric, "baseline")


# ---------------------------------------------------------------------------------------------------- statistics


@pytest.mark.parametrize("n", [2, 3, 5, 9])
def test_t_and_sign_flip_are_scipys(n):
    random = np.random.default_rng(n)
    a, b = random.normal(0.5, 1, n), random.normal(0, 1, n)
    expected = stats.ttest_rel(a, b)
    assert paired_t(a - b) == pytest.approx(expected.pvalue, rel=1e-12)
    assert t_interval(a - b) == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-12)
    flipped = stats.permutation_test((a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(a - b) == pytest.approx(flipped.pvalue, rel=1e-12)


def test_too_few_differences_and_those_without_spread():
    assert t_interval([]) == t_interval([1.0]) == (None, None)
    assert paired_t([]) is paired_t([1.0]) is sign_flip([]) is None
    assert sign_flip([0.3]) == 1
    assert sign_flip([0.0, 0.0, 0.0]) == 1
    for alike in ([0.0, 0.0, 0.0], [0.25, 0.25, 0.25], [0.3 - 0.2, 0.2 - 0.1, 0.4 - 0.3]):  # the last but for rounding
        assert paired_t(alike) is None
        assert t_interval(alike) == (None, None)


def test_ties_of_sums_count_despite_rounding():
    # 0.1 + 0.2 + 0.3 - 0.6 is 0, but for rounding: every sum is at least as far from 0.
    assert sign_flip([0.1, 0.2, 0.3, -0.6]) == 1
    # 0.1 + 0.2 - 0.3 + 0.4 = 0.4; the sums with +0.4 are 1, 0.8, 0.6, 0.4, 0.4, 0.2, 0 and -0.2: 5 of 8 are as far from 0,
    # and as many of those with -0.4.
    assert sign_flip([0.1, 0.2, -0.3, 0.4]) == 10 / 16


def test_beyond_20_differences_the_sign_flips_are_drawn_and_come_close():
    differences = np.random.default_rng(0).normal(0.4, 1, 21)
    sums = np.zeros(1)
    for d in differences:
        sums = np.concatenate([sums + d, sums - d])
    exact = np.mean(np.abs(sums) >= abs(differences.sum()) - 1e-9)
    assert sign_flip(differences) == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 2**20))
    assert sign_flip(differences) == sign_flip(differences)
    assert sign_flip([1.0] * 40) == 1 / (2**20 + 1)  # never 0


@given(DIFFERENCES)
def test_sign_flip_is_a_share_of_sign_vectors_whatever_the_sign_of_all(differences):
    p, n = sign_flip(differences), len(differences)
    assert p * 2**n == round(p * 2**n)
    assert least_sign_flip(n) <= p <= 1
    assert sign_flip([-d for d in differences]) == p
    assert sign_flip(differences[::-1]) == p


@given(DIFFERENCES)
def test_t_does_not_depend_on_which_arm_is_the_baseline(differences):
    other = [-d for d in differences]
    assert paired_t(other) == paired_t(differences)
    low, high = t_interval(differences)
    if low is not None:
        assert t_interval(other) == (-high, -low)
        assert low <= np.mean(differences) <= high


def test_holm_worked_by_hand():
    # in order 0.005, 0.01, 0.03, 0.04, times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04; none below the one before: 0.06
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([None, 0.03]) == [None, 0.03]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order_and_lies_between_no_correction_and_bonferroni(p):
    corrected = holm(p)
    assert all(x <= y <= min(1, len(p) * x) for x, y in zip(p, corrected, strict=True))
    assert [c for _, c in sorted(zip(p, corrected, strict=True))] == sorted(corrected)


def test_seeds_that_the_sign_flip_test_needs():
    assert least_sign_flip(5) == sign_flip([1, 2, 3, 4, 5]) == 0.0625
    assert [seeds_needed(comparisons) for comparisons in (1, 3, 7)] == [6, 7, 9]
    assert seeds_needed(1, alpha=0.01) == 8


def test_the_t_interval_covers_the_truth_in_95_of_100_and_a_normal_one_does_not():
    draws = np.random.default_rng(0).normal(0.3, 2, (4000, 5))
    covered = np.mean([low <= 0.3 <= high for low, high in map(t_interval, draws)])
    assert abs(covered - 0.95) < 0.015
    half = 1.96 * draws.std(axis=1, ddof=1) / math.sqrt(5)
    assert np.mean(np.abs(draws.mean(axis=1) - 0.3) <= half) < 0.90


# ---------------------------------------------------------------------------------------------------- the table


def by_hand():
    """Differences to the baseline of +0.03, +0.02, +0.01 and of 0, +0.01, -0.01."""
    base = arm("baseline", [0.90, 0.92, 0.94])
    return table(
        arm("lr", [0.93, 0.94, 0.95], learning_rate="0.2"), base, arm("slow", [0.90, 0.93, 0.93], momentum="0", clip="1")
    )


def test_a_table_worked_by_hand():
    base, lr, slow = by_hand().rows
    assert [row.arm for row in (base, lr, slow)] == ["baseline", "lr", "slow"]  # the baseline first
    assert base.mean == pytest.approx(0.92)
    assert base.sd == pytest.approx(0.02)  # sqrt((0.02**2 + 0 + 0.02**2) / 2)
    assert (base.difference, base.low, base.p_t, base.p_sign_holm, base.changed) == (None, None, None, None, {})
    # lr: mean difference 0.02, sd 0.01, se 0.01 / sqrt(3) = 0.0057735; t(0.975; 2) = 4.302653 -> +-0.0248414
    assert (lr.difference, lr.low, lr.high) == pytest.approx((0.02, -0.0048414, 0.0448414), abs=1e-7)
    # t = 0.02 / 0.0057735 = sqrt(12); with 2 degrees of freedom p = 1 - t / sqrt(t**2 + 2) = 1 - sqrt(12 / 14)
    assert lr.p_t == pytest.approx(1 - math.sqrt(12 / 14))
    assert lr.p_t_holm == pytest.approx(2 * (1 - math.sqrt(12 / 14)))
    assert (lr.p_sign, lr.p_sign_holm) == (0.25, 0.5)  # 2 of 8 sign vectors, two comparisons
    assert slow.difference == pytest.approx(0, abs=1e-15)
    assert (slow.p_sign, slow.p_t_holm, slow.p_sign_holm) == (1, pytest.approx(1), 1)
    assert (lr.paired, lr.planned, lr.seconds) == (3, 3, 3.0)
    assert lr.changed == {"learning_rate": "0.2"}
    assert slow.changed == {"momentum": "0", "clip": "1"}


def test_a_flag_that_only_the_baseline_has_is_changed_too():
    c = table(arm("baseline", [0.9], hidden="64"), arm("linear", [0.8], model="linear"))
    assert c.rows[1].changed == {"model": "linear", "hidden": ""}


def test_what_is_not_done_is_counted_and_not_averaged():
    outcomes = [
        Outcome(0, None, "done", result(0.95), "abc", 1),
        Outcome(1, None, "diverged", result(0.1, "diverged"), "abc", 1),
        Outcome(2, None, "failed", error="out of memory\nlong story"),
        Outcome(3, None, "missing"),
    ]
    c = table(arm("baseline", [0.90, 0.91, 0.92, 0.93]), Arm("wide", FLAGS, outcomes))
    row = c.rows[1]
    assert (row.values, row.planned, row.diverged, row.failed, row.paired) == ({0: 0.95}, 4, 1, 1, 1)
    assert (row.mean, row.sd, row.low, row.p_t, row.p_sign) == (0.95, None, None, None, 1)
    assert row.difference == pytest.approx(0.05)
    said = "\n".join(c.notes)
    assert "1 trial of 8 diverged" in said
    assert "1 trial of 8 failed; the first error: out of memory\n" in said
    assert "1 trial of 8 missing" in said
    assert "wide: 1 seed in common with the baseline (values: 1, the baseline's: 4)" in said
    assert "| wide | **0.9500** | 1/4 (1 diverged, 1 failed) | +0.0500 | — | 1.0000 | 3.0 | — |" in tables.markdown(c)
    assert table(arm("baseline", [None, None])).rows[0].mean is None


def test_a_trial_that_does_not_report_the_metric_is_told_of():
    forecast = Arm("forecast", FLAGS, [Outcome(0, None, "done", result(0) | {"test": {"loss": 0.1, "rmse": 2.0}})])
    c = table(arm("baseline", [0.9]), forecast)
    assert c.rows[1].mean is None
    assert "1 trial of 2 done, but without test/accuracy." in c.notes


def test_only_trials_of_the_same_seed_are_pairs():
    other = Arm("other", FLAGS, [Outcome(seed, None, "done", result(0.9 + seed / 100)) for seed in (2, 3)])
    row = table(arm("baseline", [0.5, 0.6, 0.91]), other).rows[1]
    assert row.paired == 1
    assert row.difference == pytest.approx(0.92 - 0.91)


def test_notes_tell_when_too_few_seeds_can_show_nothing():
    def noted(seeds, arms):
        values = [0.9 + s / 1000 for s in range(seeds)]
        return "\n".join(table(arm("baseline", values), *(arm(f"a{i}", values) for i in range(arms))).notes)

    five = "With 5 paired seeds the sign-flip test cannot go below 0.0625: it cannot show a difference at 0.05; 6 seeds"
    assert five in noted(5, 1)
    assert "cannot go below" not in noted(6, 1)
    assert "0.01562, or 0.1094 after Holm's correction for 7 comparisons" in noted(7, 7)
    assert "; 9 seeds would be needed" in noted(8, 7)
    assert "cannot go below" not in noted(9, 7)


def test_notes_tell_of_splits_commits_and_packs():
    assert any("chosen on validation" in note for note in by_hand().notes)
    assert any("over seeds on this fixed test set" in note for note in by_hand().notes)
    assert not any("commits" in note or "packed" in note or "diverged" in note for note in by_hand().notes)
    outcomes = [
        Outcome(0, None, "done", result(0.9), "a" * 40, 1),
        Outcome(1, None, "done", result(0.9), "b" * 40 + "+" + "c" * 40, 8),
        Outcome(2, None, "missing", None, "d" * 40, 2),
    ]
    notes = table(Arm("baseline", FLAGS, outcomes), metric="validation/accuracy").notes
    assert notes[0] == "These values are those that the best step was chosen by: they are optimistic."
    assert "different commits: aaaaaaaaa, bbbbbbbbb, ccccccccc." in "\n".join(notes)
    assert "packed differently (1, 8 together)" in "\n".join(notes)
    assert not any("over seeds" in note for note in notes)  # no interval, no p value


def test_which_way_is_better():
    names = ("accuracy", "top5_accuracy", "loss", "rmse", "bits_per_character")
    assert [find(f"test/{name}", EARLIER).sign for name in names] == [1, 1, -1, -1, -1]


# ---------------------------------------------------------------------------------------------------- its forms


def test_markdown_shows_a_row_an_arm_with_the_best_in_bold():
    lines = tables.markdown(by_hand()).splitlines()
    assert lines[0] == "### digits"
    assert lines[4] == "| baseline | 0.9200 ± 0.0200 | 3/3 | — | — | — | 3.0 | — |"
    assert (
        lines[5] == "| lr | **0.9400 ± 0.0100** | 3/3 | +0.0200 [-0.0048, 0.0448] | 0.1484 | 0.5000 | 3.0 | learning_rate=0.2 |"
    )
    assert lines[6].startswith("| slow | 0.9200 ± 0.0173 | 3/3 | +0.0000 [-0.0248, 0.0248] | 1.0000 | 1.0000 | ")  # no -0
    assert lines[-1].startswith("- ")
    assert "**" not in tables.markdown(table(arm("baseline", [0.9, 0.8]), arm("none", [None, None])))
    assert r"a\|b\*" in tables.markdown(table(arm("baseline", [0.9]), arm("a|b*", [0.9])))


def test_losses_are_better_when_small_and_have_four_digits():
    def losses(name, *numbers):
        return Arm(name, FLAGS, [Outcome(s, None, "done", result(0) | {"test": {"loss": x}}) for s, x in enumerate(numbers)])

    text = tables.markdown(table(losses("baseline", 12.5, 12.7), losses("low", 0.012344, 0.012344), metric="test/loss"))
    assert "| baseline | 12.60 ± 0.1414 |" in text
    assert "| low | **0.01234 ± 0.000** |" in text
    accuracies = [0.5 + s / 1e5 for s in range(9)]
    assert "<0.0001" in tables.markdown(table(arm("baseline", accuracies), arm("up", [x * 1.1 for x in accuracies])))


def test_latex_is_escaped_and_wants_only_booktabs():
    text = tables.latex(table(arm("baseline", [0.9, 0.8]), arm(r"50% & $x_1 #{~^\}", [0.5, 0.6], data="<a|b>")))
    assert r"{50\% \& \$x\_1 \#\{\textasciitilde{}\textasciicircum{}\textbackslash{}\}} & " in text
    assert r"data=\textless{}a\textbar{}b\textgreater{}" in text
    assert r"\textbf{0.8500 $\pm$ 0.0707}" in text
    assert r" & $-$0.3000 [" in text
    assert text.isascii()
    assert {part.split("}")[0] for part in text.split(r"\begin{")[1:]} == {"table", "tabular"}
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert [line.replace(r"\&", "").count("&") for line in rows] == [7, 7, 7]
    for left, right in ("{}", "[]"):
        bare = text.replace("\\" + left, "").replace("\\" + right, "")
        assert bare.count(left) == bare.count(right)
    assert text.replace(r"\$", "").count("$") % 2 == 0


def test_csv_reads_back_to_the_same_numbers():
    c = by_hand()
    read = list(csv.DictReader(io.StringIO(tables.csv_text(c))))
    assert [line["arm"] for line in read] == ["baseline", "lr", "slow"]
    for line, row in zip(read, c.rows, strict=True):
        for field in ("mean", "sd", "difference", "low", "high", "p_t", "p_sign", "p_t_holm", "p_sign_holm", "seconds"):
            number = getattr(row, field)
            assert line[field] == "" if number is None else float(line[field]) == number
        assert {s: float(line[f"value_{s}"]) for s in range(3)} == row.values
        assert (line["metric"], line["planned"], line["diverged"], line["paired"]) == ("test/accuracy", "3", "0", "3")
        shown = {name[5:]: text for name, text in line.items() if name.startswith("flag_")}
        assert set(shown) == {flag for other in c.rows for flag in other.changed}
        assert shown == {flag: row.flags.get(flag, "") for flag in shown}
        assert any(text for text in shown.values())


@pytest.mark.parametrize("width", [30, 80, 200])
def test_a_terminal_of_any_width_shows_whole_numbers(width):
    text = tables.plain(by_hand(), width)
    for number in ("0.9200 ± 0.0200", "0.9400 ± 0.0100", "+0.0200 [-0.0048, 0.0448]", "0.1484", "0.5000"):
        assert number in text
    assert "…" not in text


def test_tables_are_written_the_same_each_time(tmp_path):
    paths = tables.write(by_hand(), tmp_path)
    assert [path.name for path in paths] == ["table.md", "table.tex", "table.csv"]
    once = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in tables.write(by_hand(), tmp_path)] == once
    assert paths[0].read_text() == tables.markdown(by_hand())


# ---------------------------------------------------------------------------------------------------- reading


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


def lines(seed=0, **flags):
    return [f"--{name}={text}" for name, text in (FLAGS | flags | {"seed": str(seed)}).items()]


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
