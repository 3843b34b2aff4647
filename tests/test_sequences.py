"""Sequences in files of one's own: how they are read, learned, measured and told."""

import dataclasses
import json
import math

import numpy as np
import pytest
from helpers import read_all
from hypothesis import given, settings
from hypothesis import strategies as st

from percept_jax import Experiment, load, train
from percept_jax.cli.main import main
from percept_jax.data import feed, preprocess
from percept_jax.errors import DataError, UsageError
from percept_jax.tasks import task_of

RNG = np.random.default_rng(0)


def read(name, folder, **reading):
    return read_all(name, folder, **reading)


def write_npz(folder, name="own.npz", **arrays):
    np.savez(folder / name, **arrays)
    return f"npz:{folder / name}"


def labeled(folder, lengths=True, **more):
    """Sequences of lengths 3 to 7 whose mean tells their class, with garbage in the padding."""
    arrays = {}
    for split, count in (("train", 60), ("test", 30)):
        y = np.sort(np.arange(count) % 3)  # by class, as files often are
        n = RNG.integers(3, 8, count)
        x = RNG.normal(y[:, None, None], 0.3, (count, 7, 2)).astype(np.float32)
        if lengths:
            x[np.arange(7) >= n[:, None]] = 1e6
            arrays[f"len_{split}"] = n
        arrays |= {f"x_{split}": x, f"y_{split}": y}
    return write_npz(folder, **arrays, **more)


def test_arrays_with_lengths_are_read_and_spread_over_slices(tmp_path):
    dataset = read(labeled(tmp_path), tmp_path)
    assert dataset.spec.splits == {"train": 60, "test": 30}
    assert (dataset.spec.kind, dataset.spec.shape, dataset.spec.classes) == ("values", (7, 2), ("0", "1", "2"))
    assert dataset.inputs.shape == (90, 7, 2)
    assert np.abs(dataset.inputs).max() < 10  # the padding is 0
    for part in (dataset.examples["label"][:30], dataset.examples["label"][30:60], dataset.examples["label"][:6]):
        assert len(set(np.bincount(part))) == 1, "each class has its share in each slice"
    for x, n, label in zip(dataset.inputs, dataset.examples["length"], dataset.examples["label"], strict=True):
        assert np.all(x[n:] == 0)
        assert np.abs(x[:n].mean() - label) < 0.6


def test_names_of_classes_are_those_of_the_file(tmp_path):
    assert read(labeled(tmp_path, classes=["a", "b", "c"]), tmp_path).spec.classes == ("a", "b", "c")


def asked(dataset):
    """The task of a data set, and what a model has to write for it."""
    task = task_of(dataset.spec)
    return task.name, task.outputs(dataset.spec)


def test_a_label_for_each_step_ends_with_the_sequence(tmp_path):
    name = write_npz(
        tmp_path, x_train=np.ones((4, 5, 2)), y_train=np.array([[0, 1, -1, 1, 1]] * 4), len_train=np.array([5, 4, 3, 1]),
        x_test=np.ones((2, 6, 2)), y_test=np.zeros((2, 6), int),
    )  # fmt: skip
    dataset = read(name, tmp_path)
    assert asked(dataset) == ("tagging", (2, 6, 0, False))
    labels = dataset.examples["label"][:4]
    np.testing.assert_array_equal(
        labels, [[0, 1, -1, 1, 1, -1], [0, 1, -1, 1, -1, -1], [0, 1, -1, -1, -1, -1], [0, -1, -1, -1, -1, -1]]
    )
    np.testing.assert_array_equal(dataset.examples["length"], [5, 4, 3, 1, 6, 6])


def test_a_series_is_forecast_each_step_or_at_its_end(tmp_path):
    x = np.arange(24.0).reshape(2, 6, 2)
    name = write_npz(tmp_path, x_train=x, len_train=[6, 4], x_test=x)
    ahead = read(name, tmp_path, ahead=2)
    np.testing.assert_array_equal(ahead.examples["length"], [4, 2, 4, 4])
    np.testing.assert_array_equal(ahead.inputs[0], x[0, :4])
    np.testing.assert_array_equal(ahead.examples["target"][0], x[0, 2:])
    np.testing.assert_array_equal(ahead.examples["target"][1, :2], x[1, 2:4])
    assert np.isnan(ahead.examples["target"][1, 2:]).all()
    assert asked(ahead) == ("forecasting", (2, 4, 0, True))
    rest = read(name, tmp_path, horizon=2)
    np.testing.assert_array_equal(rest.examples["length"], [4, 2, 4, 4])
    np.testing.assert_array_equal(rest.inputs[1], np.vstack([x[1, :2], np.zeros((2, 2))]))  # what is to be told is not shown
    np.testing.assert_array_equal(rest.examples["target"][1], x[1, 2:4])
    assert asked(rest) == ("forecasting", (2, 2, 0, True))


def test_statistics_are_those_of_the_real_steps_of_the_training_split(tmp_path):
    x = RNG.normal(5, 2, (20, 6, 3))
    n = RNG.integers(4, 7, 20)
    name = write_npz(tmp_path, x_train=x, len_train=n, x_test=100 + x)
    dataset = read(name, tmp_path, ahead=1)
    dataset = dataset._replace(spec=dataset.spec.select("train", "test[:10]", "test[10:]"))
    found = preprocess.fit("standard", dataset)
    real = np.concatenate([row[: k - 1] for row, k in zip(x, n, strict=True)])
    told = np.concatenate([row[1:k] for row, k in zip(x, n, strict=True)])
    np.testing.assert_allclose(found.mean, real.mean(0), rtol=1e-6)
    np.testing.assert_allclose(1 / np.array(found.inv_std), real.std(0), rtol=1e-6)
    np.testing.assert_allclose(found.target_mean, told.mean(0), rtol=1e-6)
    np.testing.assert_allclose(1 / np.array(found.target_inv_std), told.std(0), rtol=1e-6)


SENTENCES = {
    "train": [[["a", "X"], ["b", "Y"], ["a", "X"]], [["b", "Y"], ["c", "X"]], [["a", "X"]], [["going", "Y"], ["king", "X"]]],
    "dev": [[["a", "X"]]],
    "test": [[["d", "Y"], ["b", "Z"], ["sing", "X"], ["a", "X"]]],
}


def test_tagged_sentences_are_read_and_rare_words_are_one(tmp_path):
    (tmp_path / "tags.json").write_text(json.dumps(SENTENCES))
    dataset = read(f"tagged:{tmp_path / 'tags.json'}", tmp_path)
    assert dataset.spec.words == ("<unk>", "a", "b", "<unk>ng")
    assert dataset.spec.classes == ("X", "Y", "Z")
    assert dataset.spec.splits == {"train": 4, "dev": 1, "test": 1}
    np.testing.assert_array_equal(dataset.inputs[[0, 1, 3, 5]], [[1, 2, 1, 0], [2, 0, 0, 0], [3, 3, 0, 0], [0, 2, 3, 1]])
    np.testing.assert_array_equal(dataset.examples["label"][[0, 1, 5]], [[0, 1, 0, -1], [1, 0, -1, -1], [1, 2, 0, 0]])
    np.testing.assert_array_equal(dataset.examples["length"], [3, 2, 1, 2, 1, 4])


@settings(max_examples=60, deadline=None)
@given(st.integers(20, 400), st.integers(2, 50))
def test_every_character_but_the_first_of_a_split_is_told_once(tmp_path_factory, size, length):
    folder = tmp_path_factory.mktemp("text")
    text = "".join(RNG.choice(list("abcdef\n"), size))
    (folder / "my.txt").write_text(text)
    dataset = read(f"text:{folder / 'my.txt'}", folder, sequence_length=length)
    names, start = dataset.spec.words, 0
    assert asked(dataset) == ("language_modeling", (len(set(text)), length, len(set(text)), False))
    for split, part in zip(
        dataset.spec.splits, (text[: size * 8 // 10], text[size * 8 // 10 : size * 9 // 10], text[size * 9 // 10 :]), strict=True
    ):
        rows = slice(start, start + dataset.spec.splits[split])
        start = rows.stop
        told = dataset.examples["label"][rows][dataset.examples["label"][rows] >= 0]
        assert "".join(names[i] for i in told) == part[1:]
        seen = [row[:n] for row, n in zip(dataset.inputs[rows], dataset.examples["length"][rows], strict=True)]
        assert "".join(names[i] for i in np.concatenate(seen)) == part[:-1]


FAULTS = [
    ({"x_test": np.ones((2, 3, 1))}, "no x_train"),
    ({"x_train": np.ones((2, 3))}, r"x_train is float64 \[2, 3\]"),
    ({"x_train": np.ones((2, 3, 1))}, "no y_train; without it, give --ahead or --horizon"),
    ({"x_train": np.ones((2, 3, 1)), "y_train": np.zeros(3, int)}, r"y_train is int64 \[3\]"),
    ({"x_train": np.ones((2, 3, 1)), "y_train": np.zeros(2, int), "len_train": [3, 4]}, "len_train is not a whole number"),
    ({"x_train": np.full((2, 3, 1), np.nan), "y_train": np.zeros(2, int)}, r"x_train\[0, 0, 0\] is nan, not a finite number"),
    ({"x_train": np.ones((2, 3, 1)), "y_train": np.array([0, 5]), "classes": np.array(["a", "b"])},
     r"y_train\[1\] is 5, not from 0 to 1"),
    ({"x_train": np.ones((2, 3, 1)), "y_train": np.zeros(2, int), "x_test": np.ones((2, 3, 2)), "y_test": [0, 0]}, "differ"),
    ({"x_train": np.ones((2, 3, 1)), "y_train": np.array([0, -1])}, r"y_train\[1\] is -1, not from 0"),
    ({"x_train": np.ones((2, 3, 1)), "y_train": np.full((2, 3), -1)}, "train has no target"),
    ({"x_train": np.full((2, 3), -1), "y_train": np.zeros(2, int)}, r"x_train\[0, 0\] is -1, not from 0"),
    ({"x_train": np.array([{}] * 2), "y_train": np.zeros(2, int)}, "Python's objects, which are not read"),
]  # fmt: skip


@pytest.mark.parametrize(("arrays", "said"), FAULTS)
def test_arrays_that_are_no_sequences_are_refused_with_their_name(tmp_path, arrays, said):
    with pytest.raises(DataError, match=rf"own\.npz: .*{said}"):
        read(write_npz(tmp_path, **arrays), tmp_path)


def test_files_that_are_something_else_are_refused(tmp_path):
    for name, text, said in (
        ("tagged:a.json", "[1]", "not {'train'"),
        ("tagged:a.json", '{"train": [[["a"]]]}', r"train\[0\] is not"),
        ("tagged:a.json", "{", "a.json"),
        ("text:a.txt", "ab", "2 characters are too few"),
        ("npz:a.npz", "text", "a.npz"),
        ("npz:a.npz", "PK\x03\x04 cut off", "a.npz"),
        ("tagged:a.json", '{"train": 5}', "train is not a list of sentences"),
        ("tagged:a.json", '{"train": [5]}', r"train\[0\] is not"),
    ):
        (tmp_path / name.split(":")[1]).write_text(text)
        with pytest.raises(DataError, match=said):
            read(name, tmp_path)
    for name, said in (("text:", "needs a path: text:PATH"), ("text:gone.txt", "there is no file gone.txt")):
        with pytest.raises(UsageError, match=said):
            read(name, tmp_path)


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
    run = train(dataclasses.replace(base, dataset=name, model=model, loss="squared_error", steps=150, **how))
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
    with pytest.raises(UsageError, match="it knows no classes"):
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
    ({"model": "gru_seq2seq"}, r"writes \[1, 3\] for an example"),
    ({"random_flip": True}, "random_flip: npz:.* has sequences, not images"),
    ({"normalize": "unit"}, "normalize: sequences do not go from 0 to 255"),
    ({"loss": "squared_error"}, "loss: .* has classes; take softmax_cross_entropy or "),
    ({"horizon": 2, "loss": "squared_error", "model": "gru"}, r"the targets of .* are \[2, 2\]"),
    ({"horizon": 2, "model": "gru_seq2seq"}, "loss: .* has values; take squared_error"),
    ({"horizon": 3, "model": "gru_seq2seq", "loss": "squared_error"}, "horizon: the shortest series has 3 steps"),
    ({"label_smoothing": 0.1, "ahead": 1, "loss": "squared_error"}, "label_smoothing: .* has no labels"),
    ({"sequence_length": 64}, "sequence_length: .* is no text"),
    ({"knobs": {"bidirectional": True}, "ahead": 1, "loss": "squared_error"}, "bidirectional: would see what it is to tell"),
    ({"knobs": {"hidden": ()}}, "hidden: a recurrent network has a layer or more"),
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
    with pytest.raises(UsageError, match="loss: digits has classes"):
        train(dataclasses.replace(base, loss="squared_error"))


@pytest.mark.slow
def test_evaluation_of_sequences_does_not_depend_on_the_batch(base, tmp_path, monkeypatch):
    (tmp_path / "my.txt").write_text("to be or not to be " * 60)
    run = train(dataclasses.replace(base, dataset=f"text:{tmp_path / 'my.txt'}", sequence_length=11, steps=5))
    monkeypatch.setattr(feed, "BATCH", 3)
    again = load(run.path).evaluate()["test"]
    assert again["positions"] == run.result["test"]["positions"]
    assert again["loss"] == pytest.approx(run.result["test"]["loss"], rel=1e-6)


def test_numbers_that_are_as_many_as_the_labels_are_no_text(base, tmp_path):
    x = np.random.default_rng(0).integers(0, 2, (60, 4))
    name = write_npz(tmp_path, x_train=x, y_train=x[:, 0], x_test=x[:9], y_test=x[:9, 0])
    run = train(dataclasses.replace(base, dataset=name))
    assert run.result["test"].keys() == {"loss", "accuracy", "top5_accuracy", "examples"}
    assert run.predict(list(x[:9])).labels.tolist() == x[:9, 0].tolist()


def test_values_of_an_example_are_not_taken_for_values_of_its_steps(tmp_path):
    y = RNG.normal(size=(4, 5))
    dataset = read(write_npz(tmp_path, x_train=np.ones((4, 5, 2)), y_train=y, len_train=[5, 3, 2, 1]), tmp_path)
    np.testing.assert_allclose(dataset.examples["target"], y, rtol=1e-6)
    assert asked(dataset)[1].output_steps is None


@pytest.mark.parametrize(("model", "knobs"), [("lstm", {"bidirectional": True}), ("gru_seq2seq", {})])
def test_a_model_that_would_see_what_it_is_to_tell_is_refused(base, tmp_path, model, knobs):
    (tmp_path / "my.txt").write_text("to be or not to be " * 20)
    with pytest.raises(
        UsageError, match=r"bidirectional: would see what it is to tell|model: gru_seq2seq sees all of a sequence"
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
