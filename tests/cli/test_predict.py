"""predict: of files, of folders, of points; what is bad costs itself alone, and what is no input ends in a line."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from percept_jax import Experiment, api, train
from percept_jax.cli import predictions
from percept_jax.cli.main import main
from percept_jax.data.images import encode_png

BASE = {"model": "mlp", "steps": 5, "batch_size": 32, "learning_rate": 0.05, "devices": 1, "knobs": {"hidden": (8,)}}


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    return train(Experiment(**BASE, run_dir=str(tmp_path_factory.mktemp("digits") / "run"))).path


@pytest.fixture(scope="module")
def moons_run(tmp_path_factory):
    return train(Experiment(**BASE, dataset="moons", run_dir=str(tmp_path_factory.mktemp("moons") / "run"))).path


@pytest.fixture
def folder(tmp_path, digits):
    """Images in folders of folders, with what is none."""
    root = tmp_path / "images"
    for name, i in {"b/2.png": 0, "a.png": 1, "b/c/1.PNG": 2, "b/10.png": 3}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encode_png(digits.inputs[i]))
    Image.fromarray(np.zeros((40, 30), np.uint8)).save(root / "photo.jpeg")
    for name in (".DS_Store", "Thumbs.db", "b/desktop.ini", ".hidden.png", "__MACOSX/a.png", "@eaDir/a.png", ".git/x.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"litter")
    (root / "notes.txt").write_text("no image")
    (root / "b" / "old.gif").write_text("another image")
    return root


IMAGES = ["a.png", "b/10.png", "b/2.png", "b/c/1.PNG", "photo.jpeg"]


def predicted(capsys, run, *words, code=0):
    """What predict tells a program and a person of words."""
    capsys.readouterr()
    assert main(["predict", str(run), *map(str, words), "--json"]) == code
    out, err = capsys.readouterr()
    *lines, last = out.splitlines()
    return json.loads(last), lines, err


def test_a_folder_is_all_images_in_it(digits_run, folder, capsys):
    found, lines, err = predicted(capsys, digits_run, folder)
    assert [p["image"] for p in found["predictions"]] == [str(folder / name) for name in IMAGES]
    assert lines[0] == f"{folder}: 2 files that are not PNG or JPEG are skipped"
    assert [line.split("  ")[0] for line in lines[1:]] == [str(folder / name) for name in IMAGES]
    assert err == ""
    one, _, _ = predicted(capsys, digits_run, folder / "b" / "10.png")
    assert one["predictions"][0]["image"] == found["predictions"][1]["image"]
    assert one["predictions"][0]["probability"] == pytest.approx(found["predictions"][1]["probability"], rel=1e-5)


def test_links_to_folders_are_followed_and_those_that_lead_back_are_not(digits_run, folder, tmp_path, capsys):
    (folder / "b" / "again").symlink_to(folder)
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "there").symlink_to(folder / "b" / "c")
    (tmp_path / "more" / "1.png").symlink_to(folder / "a.png")
    found, _, _ = predicted(capsys, digits_run, tmp_path / "link", tmp_path / "more")
    names = [f"link/{name}" for name in IMAGES] + ["more/1.png", "more/there/1.PNG"]
    assert [p["image"] for p in found["predictions"]] == [str(tmp_path / name) for name in names]


def test_folders_and_files_may_be_mixed(digits_run, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    found, _, _ = predicted(capsys, digits_run, "a.png", "b/", "./a.png", "a.png")
    assert [p["image"] for p in found["predictions"]] == ["a.png", "b/10.png", "b/2.png", "b/c/1.PNG", "./a.png", "a.png"]


def test_few_images_at_a_time_are_in_memory_and_the_predictions_are_the_same(digits_run, folder, capsys, monkeypatch):
    whole, _, _ = predicted(capsys, digits_run, folder)
    monkeypatch.setattr(predictions.feed, "PIXELS", 2 * 8 * 8)
    sizes = []
    predict = api.Trained.predictions
    seen = lambda self, x, k: sizes.append([len(x), x[0].shape]) or predict(self, x, k)  # noqa: E731
    monkeypatch.setattr(api.Trained, "predictions", seen)
    parts, _, _ = predicted(capsys, digits_run, folder)
    assert sizes == [[2, (8, 8, 1)], [2, (8, 8, 1)], [1, (8, 8, 1)]]
    for one, other in zip(whole["predictions"], parts["predictions"], strict=True):
        assert (one["image"], one["class"]) == (other["image"], other["class"])
        assert one["probability"] == pytest.approx(other["probability"], rel=1e-5)


def test_bad_images_of_a_folder_are_named_and_cost_themselves_alone(digits_run, folder, capsys):
    (folder / "a.png").write_text("no image")
    found, lines, err = predicted(capsys, digits_run, folder, code=4)
    assert err == f"{found['error']}\n"
    assert found["error"].startswith(f"{folder / 'a.png'}: not a PNG or JPEG image")
    assert [p["image"] for p in found["predictions"]] == [str(folder / name) for name in IMAGES[1:]]
    assert len(lines) == 5
    for i in range(12):
        (folder / f"x{i:02}.jpg").write_bytes(b"\xff\xd8")
    (folder / "b" / "gone.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "b" / "pipe.png")
    (folder / "b" / "cut.png").write_bytes((folder / "b" / "10.png").read_bytes()[:60])
    found, _, err = predicted(capsys, digits_run, folder, code=4)
    assert err.count("\n") == 1
    assert err.startswith("16 of 20 images cannot be read: ")
    assert err.endswith("; and 6 more\n")
    assert all(f"{folder / 'b' / name}.png" in err for name in ("gone", "pipe", "cut"))
    assert len(found["predictions"]) == 4


def test_a_bad_image_that_is_named_is_a_wrong_command(digits_run, folder, capsys):
    (folder / "a.png").write_text("no image")
    found, _, err = predicted(capsys, digits_run, folder / "b", folder / "a.png", code=2)
    assert err.startswith(f"{folder / 'a.png'}: not a PNG or JPEG image")
    assert len(found["predictions"]) == 3


def test_what_names_no_image_is_refused_before_any_prediction(digits_run, folder, tmp_path, capsys):
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    (tmp_path / "empty" / "deep" / "notes.txt").write_text("no image")
    os.mkfifo(tmp_path / "pipe.png")
    for word, said in (
        (tmp_path / "empty", "empty: no PNG or JPEG file in this folder"),
        (tmp_path / "gone.png", "gone.png: no such file"),
        (tmp_path / "gone", "gone: no such file"),
        ("", "an empty argument"),
        (tmp_path / "pipe.png", "pipe.png is a pipe"),
        ("~nobody-here/x.png", "there is no user"),
        ("a\nb.png", "a path must not contain a line break"),
    ):
        found, lines, err = predicted(capsys, digits_run, folder / "a.png", word, code=2)
        assert said in err
        assert err.count("\n") == 1
        assert lines == []
        assert found.keys() == {"error"}


@pytest.mark.parametrize(
    "word",
    ["\u0660,1", "1_0,1", "nan,1", "inf,1", "1e300,1", "1e999,1", "0x1,1", ",", "1,,2", " 1,2", "1;2", "1,2 ", "1\n,2", "/"],
)
def test_what_is_no_point_is_refused(moons_run, capsys, word):
    _, lines, err = predicted(capsys, moons_run, "0.5,1", word, code=2)
    assert err == f"{word!r} is not a point; write numbers, such as 0.5,-1\n"
    assert lines == []


def test_points_are_told_as_they_were_given(moons_run, capsys):
    words = ["0.5,1", "-.5, +1e-3", "1.,0"]
    found, _, _ = predicted(capsys, moons_run, *words)
    assert [p["image"] for p in found["predictions"]] == words
    _, _, err = predicted(capsys, moons_run, "1,2,3", code=2)
    assert "a point is [3], not [2]" in err


def test_predictions_outlive_their_reader(digits_run, folder, monkeypatch):
    """Both streams are gone, as after a hang-up."""
    monkeypatch.setattr("sys.stdout", None)
    trained = api.load(digits_run)
    rows = predictions._images(trained, [str(folder)], predictions.Request([str(digits_run)], None, {"top_k": 1}, {}, "", ""))
    assert len(rows) == 5
