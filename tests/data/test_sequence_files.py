"""Sequences in files: how they are read."""

import json

import numpy as np
import pytest
from helpers import read_all
from helpers.sequences import RNG, asked, labeled, write_npz
from hypothesis import given, settings
from hypothesis import strategies as st

from percept_jax.data import preprocess
from percept_jax.errors import DataError, UsageError


def read(name, folder, **reading):
    return read_all(name, folder, **reading)


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
    ({"x_train": np.ones((2, 3, 1))}, "no y_train; to forecast x_train without it, give --ahead or --horizon"),
    ({"x_train": np.ones((2, 3, 1)), "y_train": np.zeros(3, int)}, r"y_train is int64 \[3\]"),
    ({"x_train": np.ones((2, 3, 1)), "y_train": np.zeros(2, int), "len_train": [3, 4]}, "len_train is not an integer"),
    ({"x_train": np.full((2, 3, 1), np.nan), "y_train": np.zeros(2, int)}, r"x_train\[0, 0, 0\] is nan, not a finite number"),
    ({"x_train": np.ones((2, 3, 1)), "y_train": np.array([0, 5]), "classes": np.array(["a", "b"])},
     r"y_train\[1\] is 5, not from 0 to 1"),
    ({"x_train": np.ones((2, 3, 1)), "y_train": np.zeros(2, int), "x_test": np.ones((2, 3, 2)), "y_test": [0, 0]}, "differ"),
    ({"x_train": np.ones((2, 3, 1)), "y_train": np.array([0, -1])}, r"y_train\[1\] is -1, not from 0"),
    ({"x_train": np.ones((2, 3, 1)), "y_train": np.full((2, 3), -1)}, "train has no target"),
    ({"x_train": np.full((2, 3), -1), "y_train": np.zeros(2, int)}, r"x_train\[0, 0\] is -1, not from 0"),
    ({"x_train": np.array([{}] * 2), "y_train": np.zeros(2, int)}, "Python objects, which are not read"),
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


def test_values_of_an_example_are_not_taken_for_values_of_its_steps(tmp_path):
    y = RNG.normal(size=(4, 5))
    dataset = read(write_npz(tmp_path, x_train=np.ones((4, 5, 2)), y_train=y, len_train=[5, 3, 2, 1]), tmp_path)
    np.testing.assert_allclose(dataset.examples["target"], y, rtol=1e-6)
    assert asked(dataset)[1].output_steps is None
