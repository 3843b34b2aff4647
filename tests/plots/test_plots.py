"""Pictures of a run: any class name, files that are damaged, and writing in one piece."""

import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import some
from PIL import Image

from percept_jax import files, train
from percept_jax.errors import StorageError
from percept_jax.plots import labels
from percept_jax.plots import run as run_plots
from percept_jax.plots.arrays import draw_boundary as draw_plane
from percept_jax.plots.arrays import draw_grid
from percept_jax.plots.run import draw_finished_run, draw_run

pytestmark = [pytest.mark.pictures, pytest.mark.filterwarnings("error")]

CHINESE, EMOJI, PRIVATE = "\u732b\u72ac", "\U0001f996\U0001fabf", "\ue000\U0010fffd"
NAMES = {
    "Chinese": [CHINESE, "dog"],
    "emoji": [EMOJI, "a\u200d" + EMOJI],
    "Arabic": ["\u0642\u0637\u0629", "\u0643\u0644\u0628"],
    "control": ["a\x07b", "\t"],
    "lines": ["a\nb", "a\r\nb", "a\u2028b"],
    "formulas": ["$x_1$", "$", "_a", "\\frac"],
    "long": ["x" * 5000, CHINESE * 2000],
    "empty": ["", "  "],
    "one": ["a"],
    "private": list(PRIVATE),
    "directions": ["\u202eabc", "abc"],
    "marks": ["a" + "\u0301" * 500, "\u200b"],
}


def write_run(path, classes=("a", "b"), lines=None):
    """What plots read of a run directory."""
    path.mkdir(exist_ok=True)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["true \\ predicted", *classes])
    table.writerows([name, *range(len(classes))] for name in classes)
    (path / "confusion.csv").write_bytes(text.getvalue().encode())
    lines = lines or [
        {"step": step, "split": split, "loss": 1 / step, "accuracy": 0.5, "examples": 3}
        for step in (1, 2)
        for split in ("train", "validation")
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def draw_boundary(path, classes):
    points = {split: (np.zeros((3, 2)), np.arange(3) % len(classes)) for split in ("train", "test")}
    plane = np.linspace(0, 1, 4)
    draw_plane(path, plane, plane, np.zeros((4, 4), int), points, ["$x", "_y"], classes)


@pytest.mark.parametrize("kind", some(NAMES, "Chinese", "control", "formulas", "long"))
def test_any_class_name_is_drawn_without_a_warning(tmp_path, capfd, kind):
    names = NAMES[kind]
    run = write_run(tmp_path / "run", names)
    assert [path.name for path in draw_run(run)] == ["training.png", "confusion.png"]
    draw_boundary(run / "boundary.png", names)
    for path in run.glob("*.png"):
        with Image.open(path) as image:
            image.load()
            assert max(image.size) <= 2000
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_names_in_a_picture_tell_the_classes_apart_in_a_line_each(names):
    found = labels.written(names)
    assert len(set(found.texts)) == len(names)
    assert all(text.isprintable() or text.isspace() or EMOJI[0] in text or text in PRIVATE for text in found.texts)
    assert found.columns <= labels.LONGEST


def test_a_letter_that_no_font_has_makes_a_number():
    assert labels.written([PRIVATE[1], "dog", PRIVATE[1] * 2]).texts == ["0", "dog", "2"]
    assert labels.written(["0", PRIVATE[1]], first=-1).texts == ["0", "#0"]  # not to be taken for the class that is called 0
    assert labels.written([PRIVATE[1], "a"], what="arm ", first=1).texts == ["arm 1", "a"]
    assert labels.written(["dog"]).numbered == []
    assert labels.written([]).columns == 0


def test_another_font_of_the_machine_writes_what_the_first_one_lacks(tmp_path, monkeypatch):
    own = labels._letters_of(labels._file_of("sans-serif"))
    other = labels._letters_of(labels._file_of("STIXGeneral"))
    letter = min(c for c in other - own if c.isprintable() and c.isalpha())
    found = labels.written(["a" + letter, "b"])
    assert found.texts == ["a" + letter, "b"]
    assert len(found.families) > 1
    draw_boundary(tmp_path / "boundary.png", ["a" + letter, "b"])
    monkeypatch.setattr(labels, "_families_with", lambda absent: {})
    assert labels.written(["a" + letter, "b"]).texts == ["0", "b"]


@pytest.mark.slow
def test_thousands_of_classes_make_a_picture_of_the_same_size(tmp_path):
    run = write_run(tmp_path, [f"class {i} {CHINESE}" for i in range(1000)])
    draw_run(run)
    with Image.open(run / "confusion.png") as image:
        assert image.size == (1200, 1200)


def metrics_lines(*names):
    return [{"step": s, "split": split, **dict.fromkeys(found, 0.5)} for s in (1, 2) for split, found in names]


@pytest.mark.parametrize(
    ("train", "validation", "drawn"),
    [
        (["loss", "accuracy"], ["loss", "accuracy", "top5_accuracy"], "accuracy"),
        (["loss", "accuracy"], ["loss", "accuracy", "bits_per_character"], "accuracy"),
        (["loss"], ["loss", "rmse"], "rmse"),
        (["loss"], ["loss"], "loss"),
        ([], ["loss"], "loss"),
    ],
)
def test_training_shows_the_metric_that_tells_most_of_both_splits(tmp_path, monkeypatch, train, validation, drawn):
    write_run(tmp_path, lines=metrics_lines(("train", train), ("validation", validation)))
    shown = []
    png = run_plots.png
    monkeypatch.setattr(run_plots, "png", lambda figure, *dpi: shown.append(figure) or png(figure, *dpi))
    run_plots._training(tmp_path)
    assert [axes.get_ylabel() for axes in shown[0].axes] == ["loss", drawn]


@pytest.mark.parametrize(
    "content",
    [b"", None, b"[]\n{}\n", b'{"step": 1, "split": "train", "loss": "x"}\n', b'{"split": "train"}\n', b"\xff\xff\n", b"3\n4\n"],
)
def test_a_damaged_log_costs_training_png_alone(tmp_path, content):
    run = write_run(tmp_path)
    if content is None:
        (run / "metrics.jsonl").unlink()
    else:
        (run / "metrics.jsonl").write_bytes(content)
    with pytest.raises(StorageError, match=r"metrics\.jsonl:") as error:
        draw_run(run)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in run.glob("*.png")) == ["confusion.png"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\n", b"\0", b"x\n", b"t,a,b\na,1,2\n", b"t,a,b\na,1,2\nb,3\n", b"t,a,b\na,1,x\nb,3,4\n", b"t,a,b\na,1,-2\nb,3,4\n",
        b"t,a,b\nb,1,2\na,3,4\n", b"t,a\na," + b"9" * 400 + b"\n", "t,a\na,\u0663\n".encode(), b"\xff,a\na,1\n",
        b"t," + b"a" * 10**6,
        b"t,a\n\n",
    ],
)  # fmt: skip
def test_a_damaged_table_costs_confusion_png_alone(tmp_path, content):
    run = write_run(tmp_path)
    (run / "confusion.csv").write_bytes(content)
    with pytest.raises(StorageError, match=r"confusion\.csv: cannot be read: ") as error:
        draw_run(run)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in run.glob("*.png")) == ["training.png"]


def test_a_picture_is_replaced_in_one_piece(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run")
    draw_run(run)
    draw_grid(run / "grid.png", np.zeros((2, 3, 4, 4, 1), np.uint8))
    before = {path: path.read_bytes() for path in run.glob("*.png")}
    assert len(before) == 3

    def refuse(path, content):
        raise StorageError(f"{path}: No space left on device")

    monkeypatch.setattr(files, "write_bytes", refuse)
    for attempt in (
        lambda: draw_run(run),
        lambda: draw_grid(run / "grid.png", np.ones((2, 3, 4, 4, 3), np.uint8)),
        lambda: draw_boundary(run / "boundary.png", ["a", "b"]),
    ):
        with pytest.raises(StorageError, match="No space left"):
            attempt()
    assert {path: path.read_bytes() for path in run.glob("*") if path.suffix == ".png"} == before


@pytest.mark.slow
def test_pictures_are_drawn_where_the_home_directory_cannot_be_written_to(tmp_path):
    run = write_run(tmp_path / "run", [CHINESE, "b"])
    code = f"from pathlib import Path; from percept_jax.plots.run import draw_run; print(len(draw_run(Path({str(run)!r}))))"
    env = {**os.environ, "HOME": "/proc/none", "XDG_CONFIG_HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    assert "Traceback" not in done.stderr


def test_a_finished_run_that_was_killed_before_its_pictures_gets_them_at_the_next_start(small):
    path = train(small).path
    drawn = {name: (path / name).read_bytes() for name in ("training.png", "confusion.png")}
    (path / "confusion.png").unlink()
    train(small)
    assert {name: (path / name).read_bytes() for name in drawn} == drawn
    stamp = (path / "training.png").stat().st_mtime_ns
    train(small)
    assert (path / "training.png").stat().st_mtime_ns == stamp


def test_a_fault_in_a_picture_is_a_note_and_the_run_is_finished(small, monkeypatch, capsys):
    def fails(path):
        raise RuntimeError("no fonts\nat all")

    with monkeypatch.context() as patched:
        patched.setattr(run_plots, "draw_run", fails)
        assert train(small).result["status"] == "done"
    assert "no pictures: no fonts\n" in capsys.readouterr().out
    assert train(small).path.joinpath("training.png").exists()


def test_pictures_are_not_drawn_into_a_directory_that_another_process_holds(tmp_path):
    run, notes = write_run(tmp_path / "run"), []
    with files.locked(run / ".lock"):
        draw_finished_run(run, notes.append)
    assert not list(run.glob("*.png"))
    draw_finished_run(run, notes.append)
    assert len(list(run.glob("*.png"))) == 2
    assert not notes
