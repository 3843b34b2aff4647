"""A sweep's pictures and its report.html: all arms are there, names are only text, and half-finished sweeps draw too."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from percept_jax.analysis import report
from percept_jax.analysis.comparison import Arm, Comparison, Outcome, Row
from percept_jax.errors import StorageError
from percept_jax.metrics import EARLIER, find
from percept_jax.plots.run import read_log

pytestmark = [pytest.mark.pictures, pytest.mark.filterwarnings("error")]
PNG = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """Checks that tags close in order, and keeps the text and the attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.tags = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def cells(self):
        return [text for text in self.text if text.strip()]


def row(arm, values, planned=2, diverged=0, failed=0, **numbers):
    mean = float(np.mean(values)) if values else None
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    empty = dict.fromkeys(Row._fields[8:-1]) | {"paired": 0, "changed": {}}
    known = {
        "values": dict(enumerate(values)),
        "planned": planned,
        "diverged": diverged,
        "failed": failed,
        "mean": mean,
        "sd": sd,
    }
    return Row(**{**empty, "arm": arm, **known, **numbers})


@pytest.fixture
def sweep(tmp_path):
    """{arm: (flags, values of its trials, how many diverged)} -> a comparison, and its arms with two logged trials each."""

    def make(settings, metric="test/accuracy", logged=True, notes=()):
        arms, rows = [], []
        for i, (name, (flags, values, diverged)) in enumerate(settings.items()):
            paths = [tmp_path / "trials" / f"{i}-{seed}" for seed in range(2)]
            for seed, path in enumerate(paths if logged else ()):
                path.mkdir(parents=True)
                lines = [
                    {"step": step, "split": split, "loss": 2 / step, "accuracy": 1 - 0.1 / step}
                    for step in range(10, 50 - 10 * seed, 10)
                    for split in ("train", "validation")
                ]
                (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9')
            arms.append(Arm(name, flags, [Outcome(seed, path, "missing") for seed, path in enumerate(paths)]))
            rows.append(row(name, values, diverged=diverged))
        return Comparison("my sweep", metric, find(metric, EARLIER), next(iter(settings)), rows, notes), arms

    return make


RATES = {f"lr {rate}": ({"model": "mlp", "learning_rate": rate}, [0.9, 0.8], 0) for rate in ("0.001", "0.01", "0.1")}


def test_the_report_holds_every_arm_and_its_pictures(sweep, tmp_path):
    paths = report.write(*sweep(RATES, notes=["only 2 seeds"]), tmp_path / "out")
    assert [path.name for path in paths] == ["curves.png", "metric_learning_rate.png", "report.html"]
    text = paths[-1].read_text()
    page = Page(text)
    assert {*RATES, "my sweep", "only 2 seeds", "0.8500 ± 0.0707"} <= set(page.cells())
    assert text.startswith("<!DOCTYPE html>")
    assert not re.search(r"http|<script|<link|url\(", text)
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    for image, path in zip(images, paths[:-1], strict=True):
        assert path.read_bytes().startswith(PNG)
        assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) == path.read_bytes()
        assert image["alt"]


def test_the_same_comparison_gives_the_same_bytes(sweep, tmp_path):
    comparison, arms = sweep(RATES)
    first, second = (report.write(comparison, arms, tmp_path / name) for name in ("first", "second"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_names_are_only_text(sweep, tmp_path):
    name = r'<b>&"$\x$_'  # between dollars it would be a formula, and a wrong one
    odd = {name: ({"a/b": "1"}, [0.5], 0), "_": ({"a/b": "2"}, [0.6], 0), "$": ({"a/b": "3"}, [0.7], 0)}
    comparison, arms = sweep(odd, notes=[name])
    comparison = comparison._replace(name=name, rows=[r._replace(changed={"a/b": name}) for r in comparison.rows])
    paths = report.write(comparison, arms, tmp_path)
    assert [path.name for path in paths] == ["curves.png", "metric_a_b.png", "report.html"]
    text = paths[-1].read_text()
    page = Page(text)
    assert "<b>" not in text
    assert page.cells().count(name) == 5  # title, heading, baseline, row and note
    assert page.cells().count(f"a/b={name}") == 3


def test_the_table_says_what_is_known(sweep, tmp_path):
    comparison, arms = sweep(RATES)
    numbers = {"difference": 0.05, "low": -0.01, "high": 0.11, "p_t_holm": 0.0004, "p_sign_holm": 0.5, "seconds": 12.34}
    changed = {"changed": {"optimizer": "adam"}}
    rows = [row("lr 0.001", [0.9]), row("lr 0.01", [0.95], 4, 2, 1, **numbers, **changed), row("lr 0.1", [], 2)]
    page = Page(report.write(comparison._replace(rows=rows), arms, tmp_path)[-1].read_text())
    cells = page.cells()
    start = cells.index("lr 0.01")
    assert cells[start : start + 8] == [
        "lr 0.01", "0.9500", "1/4 (2 diverged, 1 failed)", "+0.0500 [-0.0100, 0.1100]", "0.0004", "0.5000", "12.3",
        "optimizer=adam",
    ]  # fmt: skip
    assert [attrs for tag, attrs in page.tags if tag == "tr"] == [{}, {"class": "baseline"}, {}, {}]


@pytest.mark.parametrize(
    ("metric", "best"), [("test/accuracy", "0.9000"), ("test/top5_accuracy", "0.9000"), ("test/rmse", "0.5000")]
)
def test_the_best_mean_is_bold(sweep, tmp_path, metric, best):
    settings = {"a": ({"norm": "x"}, [0.5], 0), "b": ({"norm": "y"}, [0.9], 0), "c": ({"norm": "z"}, [], 0)}
    text = report.write(*sweep(settings, metric), tmp_path)[-1].read_text()
    assert re.findall("<strong>(.*?)</strong>", text) == [best]


@pytest.mark.parametrize("diverged", [0, 2])
def test_a_sweep_without_a_finished_trial_has_a_report(sweep, tmp_path, diverged):
    settings = {name: (flags, [], diverged) for name, (flags, *_) in RATES.items()}
    paths = report.write(*sweep(settings, logged=False), tmp_path)
    assert [path.name for path in paths] == ["metric_learning_rate.png", "report.html"]
    text = paths[-1].read_text()
    Page(text)
    assert ("all trials diverged" in text) == bool(diverged)
    assert "<strong>" not in text


def test_of_many_arms_some_are_drawn_and_the_report_says_so(sweep, tmp_path):
    settings = {f"arm {i}": ({"a": str(i), "b": str(-i)}, [i / 100] if i % 7 else [], 0) for i in range(26)}
    text = report.write(*sweep(settings), tmp_path)[-1].read_text()
    assert "of 26 arms the 12 best, the 4 worst and the baseline" in text
    assert "12 of 26 combinations of the other flags" in text
    assert set(settings) <= set(Page(text).cells())


def test_a_curve_is_the_mean_over_the_trials_that_have_the_step():
    def lines(*losses):
        return [{"step": 10 * i, "split": "train", "loss": loss} for i, loss in enumerate(losses)]

    trials = [lines(1.0, 2.0, 4.0), lines(3.0, 6.0, float("nan")), lines(2.0, None), []]
    assert report.curve(trials, "train", "loss").tolist() == [[0, 10, 20], [2, 4, 4], [1, 2, 4], [3, 6, 4]]
    assert report.curve(trials, "validation", "loss").shape == (4, 0)
    assert report.curve(trials, "train", "accuracy").shape == (4, 0)


@pytest.mark.parametrize(
    ("values", "log"),
    [
        ([1e-4, 3e-4, 1e-3, 3e-3, 1e-2], True),
        ([16, 32, 64, 128, 256], True),
        ([0.001, 0.01], True),
        ([0.1, 0.2, 0.5], False),  # within a factor of 10
        ([0, 0.01, 0.1], False),
        ([-1, 1, 100], False),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], False),  # even in difference
        ([1], False),
        ([], False),
    ],
)
def test_log_axes(values, log):
    assert report.is_log(values) is log


@pytest.mark.parametrize(
    ("flags", "swept"),
    [
        ({"a": "123"}, ["a"]),
        ({"a": "112"}, ["a"]),
        ({"a": "112", "b": "xyx"}, []),
        ({"a": "112", "b": "123", "c": "777"}, ["b"]),
        ({"a": ["1", "2", "nan"]}, []),
        ({"a": ["1", "2", "inf"]}, []),
        ({"a": ["1", "2", "auto"]}, []),
    ],
)
def test_swept_numbers(flags, swept):
    arms = [Arm(str(i), {flag: texts[i] for flag, texts in flags.items()}, ()) for i in range(3)]
    assert report.swept_numbers(arms) == swept
    assert report.swept_numbers([*arms, Arm("without", {}, ())]) == []


DAMAGED = {
    "no object": "[]\n",
    "a number": "3\n",
    "no step": '{"split": "train", "loss": 1}\n',
    "a step of text": '{"step": "1", "split": "train", "loss": 1}\n',
    "no split": '{"step": 1, "loss": 1}\n',
    "a loss of text": '{"step": 1, "split": "train", "loss": "1"}\n',
    "NaN": '{"step": 1, "split": "train", "loss": NaN}\n',
    "a huge step": '{"step": 1' + "0" * 400 + ', "split": "train", "loss": 1}\n',
    "no UTF-8": b"\xff\xfe",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_log_that_is_not_what_a_run_writes_is_damaged(tmp_path, content):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes((content.encode() if isinstance(content, str) else content) + b'{"step": 1, "split": "train"}\n')
    with pytest.raises(StorageError, match=r"metrics\.jsonl:") as error:
        read_log(tmp_path)
    assert "\n" not in str(error.value)


def test_a_damaged_log_costs_its_own_curve_and_is_told_of(sweep, tmp_path):
    comparison, arms = sweep(RATES)
    whole = report.write(comparison, arms, tmp_path / "whole")
    path = arms[1].outcomes[0].path / "metrics.jsonl"
    path.write_text(DAMAGED["a loss of text"] + path.read_text())
    paths = report.write(comparison, arms, tmp_path / "out")
    assert [p.name for p in paths] == [p.name for p in whole]
    assert paths[0].read_bytes() != whole[0].read_bytes()
    assert f"1 trial is missing from the learning curves: {path}: line 1 is damaged" in paths[-1].read_text()


def test_a_finished_trial_without_a_log_is_told_of(sweep, tmp_path):
    comparison, arms = sweep(RATES)
    outcomes = [outcome._replace(status="done", result={"test": {}}) for outcome in arms[0].outcomes]
    for outcome in outcomes:
        (outcome.path / "metrics.jsonl").unlink()
    text = report.write(comparison, [arms[0]._replace(outcomes=outcomes), *arms[1:]], tmp_path / "out")[-1].read_text()
    assert "2 trials are missing from the learning curves: " in text
    assert "there is no such file" in text


def test_names_beyond_the_font_are_numbered_as_the_rows_of_the_table(sweep, tmp_path):
    names = ["baseline", "学習率\U0001f600", "\ue000\x07", "a\nb", "x" * 500, "\u202eabc", "abc"]
    settings = {name: ({"a": str(i), "b": name}, [0.5, 0.6], 0) for i, name in enumerate(names)}
    paths = report.write(*sweep(settings), tmp_path / "out")
    assert [path.name for path in paths] == ["curves.png", "metric_a.png", "report.html"]
    assert (
        "Arms whose names cannot be drawn, or look alike, are shown by their row numbers in the table." in paths[-1].read_text()
    )
