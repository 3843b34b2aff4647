"""Flag files: nested files, faults, free text."""

import os
import time

import pytest

from percept_jax.cli.commands import OPTIONS
from percept_jax.cli.flagfile import FREE_TEXT
from percept_jax.cli.main import main
from percept_jax.cli.request import parse
from percept_jax.errors import UsageError
from percept_jax.experiment import TYPES


def test_values_come_from_nested_files_and_the_last_word_wins(tmp_path, write, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "base.flags").write_text("# a base\n\n--model=mlp\n--learning_rate=0.5\n--hidden=8,4\n--momentum=0.5\n")
    (tmp_path / "sub" / "my.flags").write_text("// of mine\n--flagfile=../base.flags\n--momentum=0.25\n")
    monkeypatch.chdir(tmp_path)
    request = parse(["sub/my.flags", "--seed=3", "--epochs", "2", "--nofresh"])
    experiment = request.experiment
    assert (experiment.model, experiment.learning_rate, experiment.momentum, experiment.seed) == ("mlp", 0.5, 0.25, 3)
    assert experiment.knobs == {"hidden": (8, 4)}
    assert experiment.epochs == 2
    assert request.name == "my"
    assert request.origins["learning_rate"] == "sub/../base.flags:4"
    assert request.origins["momentum"] == "sub/my.flags:3"
    assert request.origins["seed"] == "command line"


def test_of_steps_and_epochs_the_last_one_counts(write):
    path = write(my="--epochs=3\n")
    assert (parse([path, "--steps=20"]).experiment.steps, parse([path, "--steps=20"]).experiment.epochs) == (20, 0)
    assert (parse(["--steps=20", path]).experiment.steps, parse(["--steps=20", path]).experiment.epochs) == (0, 3)


def test_steps_and_epochs_on_one_command_line_contradict_each_other(tmp_path, capsys):
    sweep = tmp_path / "my.sweep"
    sweep.write_text("--momentum={0,0.5}\n")
    for args in ([], [str(sweep)], ["--sweep", "--momentum={0,0.5}"]):
        assert main([*args, "--steps=20", "--epochs=3"]) == 2
        said = "command line: --epochs: give either --epochs or --steps; --steps is also on the command line\n"
        assert capsys.readouterr().err == said
    assert parse(["--steps=20", "--epochs=0"]).experiment.steps == 20


def test_a_flag_file_of_one_model_serves_another(write):
    """--model on the command line changes which knobs there are; those of the file that it has not are an error."""
    path = write(my="--model=mlp\n--hidden=5\n--epochs=1\n")
    with pytest.raises(UsageError, match=r"my\.flags:2: --hidden: a flag of mlp, cnn, rnn and 5 more, not of lenet5"):
        parse([path, "--model=lenet5"])


FAULTS = {
    "--epochs=1\n--learning_rat=0.1": "my.flags:2: unknown name '--learning_rat'; did you mean '--learning_rate'?",
    "--model=linear\n--epochs=1\n--hidden=3": "my.flags:3: --hidden: a flag of mlp, cnn, rnn and 5 more, not of linear "
    "(which has initializer)",
    "--epochs=1\nlearning_rate=0.1": "my.flags:2: 'learning_rate=0.1' is not a setting; write --learning_rate=0.1",
    "--epochs=1\n--learning_rate 0.1": "my.flags:2: '--learning_rate 0.1' is not a setting; write --learning_rate=0.1",
    "--epochs=1\n  # slower": "my.flags:2: a comment starts in the first column",
    "--epochs=1\n--model='mlp'": "my.flags:2: --model: quotes would be part of the value; write --model=mlp",
    '--epochs=1\n--data_dir="/x"': "my.flags:2: --data_dir: quotes would be part of the value; write --data_dir=/x",
    "--epochs=1  # short": "my.flags:1: --epochs: a comment here would be part of the value; put it on its own line",
    "--epochs= 1": "my.flags:1: --epochs: no space after the sign; write --epochs=1",
    "--epochs=1\n--model=5": "my.flags:2: --model: unknown name '5'; see --help",
    "--epochs=1\n--model": "my.flags:2: --model: needs a value: --model=VALUE",
    "--epochs=1\n--dataset=digitz": "my.flags:2: --dataset: unknown name 'digitz'; did you mean 'digits'?",
    "--epochs=1\n--optimizer=0.1": "my.flags:2: --optimizer: unknown name '0.1'; choose from sgd, nesterov, adam",
    "--epochs=1\n--pooling=avg": "my.flags:2: --pooling: unknown name 'avg'; ",
    "--epochs=1\n--learning_rate=fast": "my.flags:2: --learning_rate: 'fast' is not a number",
    "--epochs=1\n--learning_rate=nan": "my.flags:2: --learning_rate: nan is not a finite number",
    "--epochs=1\n--learning_rate=inf": "my.flags:2: --learning_rate: inf is not a finite number",
    "--epochs=1\n--learning_rate=0": "my.flags:2: --learning_rate: 0.0 is outside (0, inf)",
    "--epochs=1\n--momentum=1": "my.flags:2: --momentum: 1.0 is outside [0, 1)",
    "--epochs=1\n--dropout_rate=1": "my.flags:2: --dropout_rate: 1.0 is outside [0, 1)",
    "--epochs=1e300": "my.flags:1: --epochs: 1e+300 is too large for float32",
    "--epochs=1e12": "my.flags:1: --epochs: 1000000000000.0 epochs are 16828125000000 steps; at most 2147483647 are possible",
    "--epochs=1\n--learning_rate=1e300": "my.flags:2: --learning_rate: 1e+300 is too large for float32",
    "# only a comment": "my.flags: --epochs: give either --epochs or --steps",
    "--epochs=1\n--seed=-1": "my.flags:2: --seed: -1 is outside [0, 4294967295]",
    "--epochs=1\n--batch_size=6.5": "my.flags:2: --batch_size: '6.5' is not a whole number or all",
    "--epochs=1\n--batch_size=0": "my.flags:2: --batch_size: 0 is outside [1, 1000000]",
    "--epochs=1\n--fresh=maybe": "my.flags:2: --fresh: 'maybe' is not true or false",
    "--epochs=1\n--model=mlp\n--hidden=3,x": "my.flags:3: --hidden: '3,x' is not whole numbers",
    "--epochs=1\n--model=mlp\n--hidden=3,0": "my.flags:3: --hidden: 0 is outside [1, 1000000]",
    "--epochs=1\n--model=linear\n--dropout_rate=0.5": "my.flags:3: --dropout_rate: linear has no dropout",
    "--model=mlp": "my.flags: --epochs: give either --epochs or --steps",
    "--epochs=1\n--batch_size=30\n--devices=4": "my.flags:2: --batch_size: 30 examples cannot be split evenly over 4 devices",
    "--epochs=1\n--devices=9": "my.flags:2: --devices: 9 devices requested, 8 available (cpu)",
    "--epochs=1\n--image_size=8": "my.flags:2: --image_size: lenet5 cannot take images of 8 pixels a side; it takes 32",
    "--epochs=1\n--image_size=8,9,10": "my.flags:2: --image_size: 8,9,10 is not a number of pixels a side, nor a height",
    "--epochs=1\n--image_size=8,x": "my.flags:2: --image_size: '8,x' is not a whole number or whole numbers",
    "--epochs=1\n--image_size=8,9": "my.flags:2: --image_size: lenet5 cannot take images of 8x9 pixels; it takes 32",
    "--epochs=1\n--flagfile=none.flags": "my.flags:2: --flagfile: {folder}/none.flags: no such file",
    "--epochs=1\n--flagfile=my.flags": "my.flags:2: --flagfile: {folder}/my.flags includes itself",
    "--epochs=1\n--flagfile": "my.flags:2: --flagfile: needs a path: --flagfile=PATH",
    "--epochs=1\n--flagfile=.": "my.flags:2: --flagfile: {folder} is a folder, not a file",
}


@pytest.mark.parametrize("text", FAULTS)
def test_a_fault_in_a_flag_file_is_one_line_exit_2_and_nothing_written(text, write, tmp_path, capsys):
    path = write(my=text + "\n")
    run_dir = tmp_path / "run"
    assert main([path, f"--run_dir={run_dir}"]) == 2
    out, err = capsys.readouterr()
    wanted = FAULTS[text].format(folder=tmp_path)
    assert err.count("\n") == 1
    assert err.strip().removeprefix(f"{tmp_path}/").startswith(wanted), err
    assert not out
    assert not run_dir.exists()


FREE = "folder:my data #2 // x"


@pytest.mark.parametrize("kind", ["flags", "sweep"])
@pytest.mark.parametrize("name", sorted(FREE_TEXT - {"flagfile", "baseline", "to", "from"}))
def test_a_path_or_a_pattern_is_kept_whole_in_both_kinds_of_file(name, kind, tmp_path):
    path = tmp_path / f"my.{kind}"
    path.write_text(
        f"# a comment\n// another\n--epochs=1\n--{name}={FREE}\n" + "--seeds=2\n[x]\n--momentum=0\n" * (kind == "sweep")
    )
    request = parse([str(path)])
    experiments = [arm.experiment for arm in request.arms] if kind == "sweep" else [request.experiment]
    assert {getattr(experiment, name) for experiment in experiments} == {FREE}


def test_every_flag_of_free_text_is_known_to_the_reader():
    assert {name for name, hint in TYPES.items() if hint is str} - {"model", "task"} <= FREE_TEXT
    paths = {name for name in ("to", "from", "predictions", "cache_dir") if name in OPTIONS}
    assert paths <= FREE_TEXT <= {*TYPES, *OPTIONS, "flagfile"}


@pytest.mark.parametrize("kind", ["flags", "sweep"])
@pytest.mark.parametrize("line", ["--momentum=0.5  # half", "--momentum=0.5 // half", "--model=mlp\t# small", "--fresh=true #"])
def test_what_looks_like_a_comment_is_refused_elsewhere_in_both_kinds_of_file(line, kind, tmp_path, capsys):
    path = tmp_path / f"my.{kind}"
    path.write_text(f"--epochs=1\n{line}\n")
    assert main([str(path)]) == 2
    said = f"{path}:2: {line.partition('=')[0]}: a comment here would be part of the value; put it on its own line\n"
    assert capsys.readouterr().err == said


def chain(folder, files, lines, names=("a",)):
    """Flag files that include the next one under each of the names; the last has so many lines."""
    for i in range(files):
        (folder / f"{i}.flags").write_text("".join(f"--flagfile={i + 1}.flags\n" for _ in names))
    (folder / f"{files}.flags").write_text("--epochs=1\n" * lines)
    return str(folder / "0.flags")


@pytest.mark.parametrize("kind", ["flags", "sweep"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"--epochs=1\n" * 10_001, "my.{kind}:10001: more than 10,000 settings"),
        (b"#" * (2**20 + 1), "my.{kind}: larger than 1 MiB"),
        (b"--dataset=" + b"x" * 2**16, "my.{kind}:1: a line of more than 64 KiB"),
        ("--epochs=1\n".encode("utf-16"), "my.{kind}: not a text file"),
        (b"--epochs=1\n\0", "my.{kind}: not a text file"),
        (b"\xff", "my.{kind}: not a text file"),
        ("--run_dir=a\u2028b\n".encode(), "my.{kind}:1: U+2028 is not allowed in a setting"),
        (b"--run_dir=a\x0bb\n", "my.{kind}:1: U+000B is not allowed in a setting"),
        (b"--flagfile=/dev/zero\n", "my.{kind}:1: --flagfile: /dev/zero is a pipe"),
        (b"--flagfile=pipe\n", "my.{kind}:1: --flagfile: {folder}/pipe is a pipe"),
        (b"--flagfile=~nosuchuser/x.flags\n", "my.{kind}:1: --flagfile: ~nosuchuser/x.flags: there is no user ~nosuchuser"),
        (b"--flagfile=loop\n", "my.{kind}:1: --flagfile: {folder}/loop: a loop of symbolic links"),
        (b"--flagfile=" + b"x" * 300, "my.{kind}:1: --flagfile: " + "x" * 40 + "...: the path is too long"),
        (b"--flagfile=0.flags\n", "{folder}/2.flags:988: more than 10,000 settings"),
        (b"--flagfile=deep/0.flags\n", "{folder}/deep/14.flags:1: --flagfile: {folder}/deep/15.flags: files are nested"),
    ],
)
def test_files_that_are_none_or_do_not_end_are_refused(content, said, kind, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    chain(tmp_path, 2, 1000, "aaaaaaaaa")
    (tmp_path / "deep").mkdir()
    chain(tmp_path / "deep", 1500, 1)
    (tmp_path / f"my.{kind}").write_bytes(content)
    begun = time.perf_counter()
    assert main([str(tmp_path / f"my.{kind}"), "--steps=1"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert said.format(kind=kind, folder=tmp_path) in err
    assert time.perf_counter() - begun < 2


@pytest.mark.parametrize("name", ["pipe.flags", "pipe.sweep", "folder.flags", "folder.sweep"])
def test_a_pipe_or_a_folder_is_no_flag_file(name, tmp_path, capsys):
    os.mkfifo(tmp_path / name) if name.startswith("pipe") else (tmp_path / name).mkdir()
    assert main([str(tmp_path / name)]) == 2
    assert capsys.readouterr().err.startswith(f"command line: {tmp_path / name} is a ")


def test_a_home_folder_is_expanded_for_flag_files(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.flags").write_text("--steps=3\n")
    (tmp_path / "b.flags").write_text("--flagfile=~/a.flags\n")
    (tmp_path / "c.sweep").write_text("--flagfile=~/a.flags\n--momentum={0.1,0.2}\n")
    assert parse(["~/b.flags"]).experiment.steps == parse(["--flagfile=~/a.flags"]).experiment.steps == 3
    assert [arm.experiment.steps for arm in parse(["~/c.sweep"]).arms] == [3, 3]


def test_a_typo_in_a_nested_file_is_told_with_that_file_s_line(write, tmp_path, capsys):
    path = write(inner="--epochs=1\n\n--momentun=0.5\n", outer="--flagfile=inner.flags\n")
    assert main([path]) == 2
    assert capsys.readouterr().err.startswith(f"{tmp_path}/inner.flags:3: unknown name '--momentun'")


def test_json_in_a_file_is_heard(write, capsys):
    assert main(["list", write(my="--json\n")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("{")
