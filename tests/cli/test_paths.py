"""Paths and names on the command line, and what run.flags can say."""

import dataclasses
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from percept_jax.cli.main import main
from percept_jax.cli.request import parse
from percept_jax.errors import UsageError
from percept_jax.experiment import TYPES, Experiment
from percept_jax.training.identity import flag_lines

FOLDERS = {
    "~nosuchuser/x": "there is no user ~nosuchuser",
    "{folder}/loop/x": "a loop of symbolic links",
    "x" * 300: "x" * 40 + "...: the path is too long",
    "{folder}/a\nb": "contains U+000A|a path must not contain a line break",
    "{folder}/a\0b": "contains U+0000|a path must not contain a line break or a NUL",
    "{folder}/\udcff": "is not UTF-8",
    "{folder}/x\ud800": "is not UTF-8",
    "{folder}/file/below": "{folder}/file is not a folder|Not a dir|neither a sweep|not a run|no such file|not a directory",
}


@pytest.mark.parametrize("text", FOLDERS)
@pytest.mark.parametrize(
    "args",
    [
        ["--steps=1", "--run_dir={}"],
        ["--sweep", "--steps=1", "--momentum={{0,0.5}}", "--run_dir={}"],
        ["--steps=1", "--data_dir={}"],
        ["list", "--data_dir={}"],
        ["prepare", "mnist", "--from={}"],
        ["prepare", "digits", "--data_dir={}"],
        ["compare", "{}"],
        ["compare", "runs", "--to={}"],
        ["evaluate", "{}"],
        ["predict", "{}", "x.png"],
        ["export", "{}", "--to=a.safetensors"],
        ["plot", "{}"],
        ["--flagfile={}"],
        ["{}.flags"],
        ["{}.sweep"],
    ],
    ids=lambda args: " ".join(args)[:30],
)
def test_a_path_that_cannot_be_is_one_line(args, text, tmp_path, capsys):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    path = text.format(folder=tmp_path)
    if "below" in text and ("--data_dir={}" in args or "--from={}" in args):
        return  # the rooms of data say what is not there
    assert main([arg.format(path) for arg in args]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert any(said.format(folder=tmp_path) in err for said in FOLDERS[text].split("|")), err
    flag = next((arg[: arg.index("=")] for arg in args if "={}" in arg), "")
    assert flag in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "name", ["...sweep", "..flags", ".flags", ".sweep", "...flags", ".my.flags", "a\nb.flags", "a\u2028b.sweep"]
)
@pytest.mark.parametrize("command", [[], ["plot", "--augmentations"]])
def test_a_name_that_leaves_runs_is_refused(name, command, tmp_path, capsys):
    (tmp_path / name).write_text("--steps=1\n--momentum={0,0.5}\n" if "sweep" in name else "--steps=1\n")
    assert main([*command, str(tmp_path / name)]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert err.startswith("command line: ")


def test_the_name_of_a_sweep_fits_a_file_system(tmp_path, capsys):
    path = tmp_path / ("x" * 249 + ".sweep")
    path.write_text("--steps=1\n--momentum={0,0.5}\n")
    assert main([str(path), "--learning_rate=0.2"]) == 2
    assert "the path is too long" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["a\nb", "a\u2028b", "a\rb", "a\x0bb", "a\x1cb", "a\x85b", "a\0", " a", "a ", "'a'", '"a', "a\udcff"]
)
@pytest.mark.parametrize("name", sorted(name for name, hint in TYPES.items() if hint is str and name != "model"))
def test_what_run_flags_could_not_say_is_no_value(text, name):
    with pytest.raises(UsageError, match="which a flag file cannot hold") as caught:
        dataclasses.replace(Experiment(steps=1), **{name: text}).validate()
    assert caught.value.flag == name


@given(st.text(max_size=20))
def test_a_valid_text_comes_back_from_run_flags(text):
    experiment = Experiment(steps=1, dataset="digits", freeze=text, lr_scale=text)
    try:
        experiment.validate()
    except UsageError:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.flags"
        path.write_bytes(("\n".join(flag_lines(experiment)) + "\n").encode())
        assert parse([str(path)]).experiment.science() == experiment.science()


def test_what_run_flags_says_is_the_experiment(tmp_path):
    experiment = Experiment(model="lenet5", steps=7, learning_rate=0.1 + 0.2, knobs={"norm": "batch"}, dropout_rate=0.1)
    (tmp_path / "run.flags").write_text("\n".join(flag_lines(experiment)) + "\n")
    read = parse([str(tmp_path / "run.flags")]).experiment
    assert read.science() == experiment.science()
    assert read.chosen() == experiment.chosen()
