"""Models of sequences are trained, evaluated and used."""

import dataclasses
import json
import math

import numpy as np
import pytest
from helpers.sequences import labeled, write_npz

from percept_jax import Experiment, load, train
from percept_jax.cli.main import main
from percept_jax.data import feed
from percept_jax.errors import UsageError


@pytest.fixture
def base(tmp_path):
    """A small recurrent network, trained for some steps."""
    experiment = Experiment(model="gru", optimizer="adam", learning_rate=0.02, batch_size=10, steps=60, eval_every=20, devices=1)
    return dataclasses.replace(experiment, run_dir=str(tmp_path / "run"), knobs={"hidden": (16,)}, log_every=20)


def logged(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_a_sequence_is_classified(base, tmp_path, capsys):
    name = labeled(tmp_path)
    run = train(dataclasses.replace(base, dataset=name, validation_split="train[:20%]"))
    assert run.result["test"]["accuracy"] > 0.9
    assert set(run.result["test"]) == {"loss", "accuracy", "top5_accuracy", "examples"}
    assert run.evaluate()["test"] == run.result["test"]
    with np.load(tmp_path / "own.npz") as file:
        x, lengths, labels = file["x_test"], file["len_test"], file["y_test"]
    found = run.predict([row[:n] for row, n in zip(x, lengths, strict=True)])
    assert (found.labels == labels).mean() == run.result["test"]["accuracy"]
    np.savez(tmp_path / "ask.npz", x=x, len=lengths)
    capsys.readouterr()
    assert main(["predict", str(run.path), str(tmp_path / "ask.npz"), "--json", "--top_k=1"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["predictions"]
    assert [int(p["class"]) for p in told] == found.labels.tolist()
    assert (run.path / "confusion.csv").exists()
    for wrong in (np.ones((3, 5)), np.ones((0, 2)), np.full((2, 2), np.nan)):
        with pytest.raises(UsageError, match="a sequence is"):
            run.predict([wrong])


def test_each_step_is_labeled_and_each_token_counts_once(base, tmp_path, capsys):
    """The tag of a word is told by the word before it."""
    draw = np.random.default_rng(1)

    def sentence():
        words = ["a" if x else "b" for x in draw.integers(0, 2, draw.integers(2, 9))]
        return [[w, before.upper()] for w, before in zip(words, ["b", *words], strict=False)]

    content = {split: [sentence() for _ in range(n)] for split, n in (("train", 100), ("dev", 20), ("test", 31))}
    (tmp_path / "tags.json").write_text(json.dumps(content))
    run = train(dataclasses.replace(base, dataset=f"tagged:{tmp_path / 'tags.json'}", steps=100))
    test = run.result["test"]
    assert test["accuracy"] > 0.95
    assert test["positions"] == sum(map(len, content["test"]))
    told = run.predict([np.array([run.preprocessing.words.index(w) for w, _ in s], np.int32) for s in content["test"]])
    right = [
        [run.preprocessing.classes[c] == tag for c, (_, tag) in zip(row, s, strict=False)]
        for row, s in zip(told.labels, content["test"], strict=True)
    ]
    assert sum(map(sum, right)) / test["positions"] == pytest.approx(test["accuracy"])
    assert np.mean([all(row) for row in right]) == pytest.approx(test["sequence_accuracy"])
    capsys.readouterr()
    assert main(["predict", str(run.path), "a b zzz", "--json"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [word for word, _ in json.loads(out[-1])["predictions"][0]["tags"]] == ["a", "b", "zzz"]
    assert out[0].startswith("a/")


@pytest.mark.parametrize(
    ("model", "how"), [pytest.param("gru_seq2seq", {"horizon": 3}, marks=pytest.mark.slow), ("gru", {"ahead": 1})]
)
def test_a_series_is_forecast_in_its_own_units(base, tmp_path, capsys, model, how):
    time, phase = np.arange(20), np.random.default_rng(2).uniform(0, 6, (150, 1))
    waves = (1000 + 50 * np.sin(time + phase))[..., None]
    name = write_npz(tmp_path, x_train=waves[:120], x_test=waves[120:])
    run = train(dataclasses.replace(base, dataset=name, model=model, steps=150, **how))
    test = run.result["test"]
    assert test["rmse"] < 10, "a wave of amplitude 50 has a deviation of 35"
    assert "accuracy" not in test
    asked = [row[: -1 if "ahead" in how else -3] for row in waves[120:]]
    found = run.forecast(asked)
    truth = waves[120:, 1:] if "ahead" in how else waves[120:, -3:]
    assert math.sqrt(np.mean((found - truth) ** 2)) == pytest.approx(test["rmse"], rel=1e-4)
    np.savez(tmp_path / "ask.npz", x=np.stack(asked))
    assert main(["predict", str(run.path), str(tmp_path / "ask.npz"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["predictions"]
    np.testing.assert_allclose([p["values"] for p in told], found, rtol=1e-5)
    best = min((line for line in logged(run.path) if line["split"] == "validation"), key=lambda line: line["loss"])
    assert run.result["best_step"] == best["step"]
    with pytest.raises(UsageError, match="was trained for forecasting and predicts no classes"):
        run.predict(asked)


@pytest.mark.slow
def test_a_text_is_learned_and_gone_on_with(base, tmp_path, capsys):
    (tmp_path / "my.txt").write_text("abcd " * 400)
    text = dataclasses.replace(base, dataset=f"text:{tmp_path / 'my.txt'}", sequence_length=32, knobs={"hidden": (16, 16)})
    run = train(dataclasses.replace(text, steps=100))
    test = run.result["test"]
    assert test["positions"] == 199
    assert test["bits_per_character"] == pytest.approx(test["loss"] / math.log(2))
    assert test["loss"] < 0.2
    assert run.generate("d ab", 11, temperature=0) == "cd abcd abc"
    assert run.generate("a", 30, seed=1) == run.generate("a", 30, seed=1)
    assert len({run.generate("a", 60, temperature=5.0, seed=seed) for seed in range(4)}) == 4
    capsys.readouterr()
    assert main(["predict", str(run.path), "ab", "--temperature=0", "--length=8"]) == 0
    assert capsys.readouterr().out == "abcd abcd \n"
    assert main(["predict", str(run.path), "aXb"]) == 2
    assert main(["predict", str(run.path), "a", "--temperature=-1"]) == 2
    assert "--temperature: -1.0 is outside [0, inf)" in capsys.readouterr().err


@pytest.mark.slow
def test_drawn_characters_have_the_probabilities_of_the_model(base, tmp_path):
    text = "".join(np.random.default_rng(3).choice(list("ab"), 2000, p=[0.8, 0.2]))
    (tmp_path / "my.txt").write_text(text)
    run = train(dataclasses.replace(base, dataset=f"text:{tmp_path / 'my.txt'}", sequence_length=20, steps=100))
    drawn = run.generate("a", 1500)
    assert abs(drawn.count("b") / 1500 - 0.2) < 0.06  # a standard error of 0.01, and the model's own error
    sharp = run.generate("a", 500, temperature=0.3)
    assert sharp.count("b") < 40  # 0.2^(1/0.3) against 0.8^(1/0.3): about 1 %


@pytest.mark.slow
def test_images_are_read_row_by_row_or_pixel_by_pixel(base, data_dir):
    runs = [
        train(dataclasses.replace(base, run_dir=f"{base.run_dir}{reading}", steps=20, knobs={"hidden": (8,), "reading": reading}))
        for reading in ("rows", "pixels")
    ]
    assert len({run.result["test"]["loss"] for run in runs}) == 2
    assert [run.result["parameters"] for run in runs] == [3 * (8 * f + 8 * 8 + 8) + 8 + 90 for f in (8, 1)]


@pytest.mark.slow
def test_padding_to_another_length_changes_no_metric(base, tmp_path):
    """The same sequences, the test split's longest or not: every number of the run but the compiler's rounding."""
    arrays = dict(np.load(tmp_path / labeled(tmp_path).split("/")[-1]).items())
    wide = {k: np.pad(v, ((0, 0), (0, 9), (0, 0)), constant_values=7.0) if k.startswith("x_") else v for k, v in arrays.items()}
    runs = []
    for name, content in (("narrow", arrays), ("wide", wide)):
        write_npz(tmp_path, f"{name}.npz", **content)
        own = dataclasses.replace(
            base, dataset=f"npz:{tmp_path / name}.npz", steps=20, dtype="float64", dropout_rate=0.2, run_dir=str(tmp_path / name)
        )
        runs.append(train(own))
    for one, other in zip(*(logged(run.path) for run in runs), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-9)


MISUSES = [
    ({"model": "lenet5"}, "model: lenet5 takes images"),
    ({"model": "gru_seq2seq"}, r"outputs \[1, 3\] per example"),
    ({"random_flip": True}, "random_flip: npz:.* has sequences, not images"),
    ({"normalize": "unit"}, "normalize: sequences do not have values from 0 to 255"),
    ({"loss": "squared_error"}, "loss: not a loss of classification; choose auto or softmax_cross_entropy or "),
    ({"horizon": 2, "loss": "squared_error", "model": "gru"}, r"the targets of .* are \[2, 2\]"),
    ({"horizon": 2, "model": "gru_seq2seq", "loss": "quadratic"}, "loss: not a loss of forecasting; choose auto or squared"),
    ({"task": "forecasting"}, "task: forecasting does not suit a data set whose examples have series, label"),
    ({"task": "forcasting"}, "task: unknown name 'forcasting'; did you mean 'forecasting'"),
    ({"horizon": 3, "model": "gru_seq2seq", "loss": "squared_error"}, "horizon: is 3, but the shortest series has 3 steps"),
    ({"label_smoothing": 0.1, "ahead": 1, "loss": "squared_error"}, "label_smoothing: .* has no labels"),
    ({"sequence_length": 64}, "sequence_length: .* is not a text"),
    ({"knobs": {"bidirectional": True}, "ahead": 1, "loss": "squared_error"}, "bidirectional: the model would see the very"),
    ({"knobs": {"hidden": ()}}, "hidden: a recurrent network needs at least one layer"),
    ({"ahead": 1, "horizon": 1}, "horizon: give --ahead or --horizon, not both"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), MISUSES)
def test_what_does_not_suit_sequences_is_refused_before_anything_is_written(base, tmp_path, change, said):
    experiment = dataclasses.replace(base, dataset=labeled(tmp_path), **({"knobs": {}} if "model" in change else {}), **change)
    with pytest.raises(UsageError, match=said):
        train(experiment)
    assert not (tmp_path / "run").exists()


def test_flags_for_series_are_refused_where_there_are_none(base):
    with pytest.raises(UsageError, match="ahead: digits has no series of values"):
        train(dataclasses.replace(base, ahead=1))
    with pytest.raises(UsageError, match="loss: not a loss of classification"):
        train(dataclasses.replace(base, loss="squared_error"))


@pytest.mark.slow
def test_evaluation_of_sequences_does_not_depend_on_the_batch(base, tmp_path, monkeypatch):
    (tmp_path / "my.txt").write_text("to be or not to be " * 60)
    run = train(dataclasses.replace(base, dataset=f"text:{tmp_path / 'my.txt'}", sequence_length=11, steps=5))
    monkeypatch.setattr(feed, "BATCH", 3)
    again = load(run.path).evaluate()["test"]
    assert again["positions"] == run.result["test"]["positions"]
    assert again["loss"] == pytest.approx(run.result["test"]["loss"], rel=1e-6)


@pytest.mark.slow
def test_numbers_that_are_as_many_as_the_labels_are_no_text(base, tmp_path):
    x = np.random.default_rng(0).integers(0, 2, (60, 4))
    name = write_npz(tmp_path, x_train=x, y_train=x[:, 0], x_test=x[:9], y_test=x[:9, 0])
    run = train(dataclasses.replace(base, dataset=name))
    assert run.result["test"].keys() == {"loss", "accuracy", "top5_accuracy", "examples"}
    assert run.predict(list(x[:9])).labels.tolist() == x[:9, 0].tolist()


@pytest.mark.parametrize(("model", "knobs"), [("lstm", {"bidirectional": True}), ("gru_seq2seq", {})])
def test_a_model_that_would_see_what_it_is_to_tell_is_refused(base, tmp_path, model, knobs):
    (tmp_path / "my.txt").write_text("to be or not to be " * 20)
    with pytest.raises(
        UsageError, match=r"bidirectional: the model would see the very steps|model: gru_seq2seq reads a whole sequence"
    ):
        train(dataclasses.replace(base, dataset=f"text:{tmp_path / 'my.txt'}", model=model, knobs=knobs))


@pytest.mark.slow
def test_nothing_is_told_of_padding_and_a_file_that_moved_is_found(base, tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(30, 8, 1))
    name = write_npz(tmp_path, x_train=x, x_test=x)
    run = train(dataclasses.replace(base, dataset=name, ahead=1, loss="squared_error", steps=5))
    np.savez(tmp_path / "ask.npz", x=x[:2], len=[2, 8])
    assert main(["predict", str(run.path), str(tmp_path / "ask.npz"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["predictions"]
    assert [len(p["values"]) for p in told] == [2, 8]
    (tmp_path / "new").mkdir()
    (tmp_path / "own.npz").rename(tmp_path / "new" / "own.npz")
    assert main(["evaluate", str(run.path), f"--data_dir={tmp_path / 'new'}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["test"] == run.result["test"]
