"""The table of a comparison, and the forms in which it is written."""

import csv
import io
import math

import pytest
from helpers.arms import FLAGS, arm, result

from percept_jax.analysis import tables
from percept_jax.analysis.comparison import Arm, Outcome
from percept_jax.analysis.statistics import (
    compare,
)
from percept_jax.metrics import EARLIER, find


def table(*arms, metric="test/accuracy"):
    return compare("digits", arms, metric, "baseline")


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
    assert any("best step on validation" in note for note in by_hand().notes)
    assert any("over seeds on this fixed test set" in note for note in by_hand().notes)
    assert not any("commits" in note or "packed" in note or "diverged" in note for note in by_hand().notes)
    outcomes = [
        Outcome(0, None, "done", result(0.9), "a" * 40, 1),
        Outcome(1, None, "done", result(0.9), "b" * 40 + "+" + "c" * 40, 8),
        Outcome(2, None, "missing", None, "d" * 40, 2),
    ]
    notes = table(Arm("baseline", FLAGS, outcomes), metric="validation/accuracy").notes
    assert notes[0] == "These values also selected the best step, so they are optimistic."
    assert "different commits: aaaaaaaaa, bbbbbbbbb, ccccccccc." in "\n".join(notes)
    assert "packs of different widths (1, 8)" in "\n".join(notes)
    assert not any("over seeds" in note for note in notes)  # no interval, no p value


def test_which_way_is_better():
    names = ("accuracy", "top5_accuracy", "loss", "rmse", "bits_per_character")
    assert [find(f"test/{name}", EARLIER).sign for name in names] == [1, 1, -1, -1, -1]


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
