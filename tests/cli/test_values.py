"""Values of flags: numbers as a person writes them, and faults on the command line."""

import json
import re

import pytest

from percept_jax.cli.main import main
from percept_jax.cli.request import parse
from percept_jax.errors import UsageError

NUMBERS = {
    "--batch_size=1_0": "'1_0' is not a whole number or all",
    "--batch_size=\u0661\u0660": "'\u0661\u0660' is not a whole number or all",
    "--seed=1_0": "'1_0' is not a whole number",
    "--seed=\uff11": "'\uff11' is not a whole number",
    "--seed=0x1F": "'0x1F' is not a whole number",
    "--seed=1e5": "'1e5' is not a whole number; write 100000",
    "--seed=7.0": "'7.0' is not a whole number; write 7",
    "--seed=++1": "'++1' is not a whole number",
    "--seed=": "'' is not a whole number",
    "--seed=9223372036854775808": "'9223372036854775808' is too large for a whole number",
    f"--seed={'9' * 5000}": f"'{'9' * 57}...' is too large for a whole number",
    "--learning_rate=1_0": "'1_0' is not a number",
    "--learning_rate=0.\u0661": "'0.\u0661' is not a number",
    "--learning_rate=0.1\u00a0": "'0.1\\xa0' is not a number",
    "--learning_rate=0x1p3": "'0x1p3' is not a number",
    "--learning_rate=.": "'.' is not a number",
    "--learning_rate=1e": "'1e' is not a number",
    "--learning_rate=0,1": "'0,1' is not a number",
    "--learning_rate=-inf": "-inf is not a finite number",
    "--learning_rate=NaN": "NaN is not a finite number",
    "--learning_rate=1e400": "'1e400' is too large for a number",
    "--weight_decay=1e-400": "'1e-400' is too small for a number",
    "--hidden=300,,100": "'300,,100' is not whole numbers: '' is not a whole number",
    "--hidden=300,": "'300,' is not whole numbers",
    "--hidden=1_0,5": "'1_0,5' is not whole numbers",
    "--hidden=300, 100": "'300, 100' is not whole numbers: ' 100' is not a whole number",
    "--hidden=9223372036854775808": "'9223372036854775808' is not whole numbers: '9223372036854775808' is too large",
    "--decay_at=0.5,nan": "'0.5,nan' is not numbers: nan is not a finite number",
    "--random_flip=maybe": "'maybe' is not true or false",
    "--random_flip=": "'' is not true or false",
    "--norandom_flip=1": "write --random_flip=true or --random_flip=false; --norandom_flip takes no value",
    "--norandom_flip=false": "write --random_flip=true or --random_flip=false; --norandom_flip takes no value",
    "--nofresh=true": "write --fresh=true or --fresh=false; --nofresh takes no value",
    "--fresh=maybe": "'maybe' is not true or false",
}
ONE = [line for line in NUMBERS if "," not in line and line[-1] != "=" and not re.match("--(no)?(fresh|seed)", line)]


@pytest.mark.parametrize(
    ("line", "kind"),
    [*((line, kind) for kind in ("line", "flags", "sweep") for line in NUMBERS), *((line, "factor") for line in ONE)],
)
def test_what_a_person_would_not_write_is_refused_in_every_place(line, kind, tmp_path, capsys):
    path = tmp_path / f"my.{'sweep' if kind == 'factor' else kind}"
    name, _, text = line.removeprefix("--").partition("=")
    line = f"--{name}={{{text}}}" if kind == "factor" else line
    path.write_text(f"--model=mlp\n--epochs=1\n{line}\n")
    args = ["--model=mlp", "--epochs=1", line] if kind == "line" else [str(path)]
    with pytest.raises(UsageError) as caught:
        parse(args)
    where = "command line" if kind == "line" else f"{path}:3"
    flag = name.removeprefix("no") if name.startswith("no") and name != "normalize" else name
    assert str(caught.value).startswith(f"{where}: --{flag}: {NUMBERS[f'--{name}={text}']}") or (name, kind) == ("seed", "sweep")
    assert main(args) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("text", ["+1", ".5", "1.", "1e-3", "1E+2", "007", "-.5e1"])
def test_what_a_person_writes_is_a_number(text):
    assert parse([f"--learning_rate={text}"]).experiment.learning_rate == float(text)


@pytest.mark.parametrize(
    "text", ["{0x0..9}", "{1_0..20:3}", "{\u0661..9}", "{1..\u0669:3}", "{1..9:\u0663}", "{log:1_0..100:3}", "{1..1e400:3}"]
)
@pytest.mark.parametrize("flag", ["momentum", "seeds"])
def test_ranges_are_of_numbers_that_a_person_writes(text, flag):
    with pytest.raises(UsageError, match=f"command line: --{flag}: .* (is not a|is too large for a)"):
        parse(["--sweep", "--steps=1", f"--{flag}={text}"])


@pytest.mark.parametrize(
    "flag", ["--pack=\u0663", "--pack=1_0", "--shard=\u0660/\u0662", "--shard=0/1_0", f"--pack={'1' * 5000}"]
)
def test_options_of_a_sweep_are_ascii_numbers(flag, capsys):
    assert main(["--sweep", "--steps=1", "--momentum={0,0.5}", flag]) == 2
    assert capsys.readouterr().err.startswith(f"command line: {flag.partition('=')[0]}: ")


@pytest.mark.parametrize("knob", ["--hidden=9223372036854775807", "--hidden=10000000000", "--hidden=1000001"])
def test_a_width_has_a_bound(knob, capsys):
    assert main(["--model=mlp", "--steps=1", knob]) == 2
    assert "is outside [1, 1000000]" in capsys.readouterr().err


def test_an_empty_argument_is_refused(capsys):
    for args in ([""], ["list", ""], ["--steps=1", ""]):
        assert main(args) == 2
        assert capsys.readouterr().err == "command line: an empty argument\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--epohs=1"], "command line: unknown name '--epohs'; did you mean '--epochs'?"),
        (["trian"], "command line: unknown name 'trian'"),
        (["digits_lenet.flags"], "command line: digits_lenet.flags: no such file"),
        (["list", "--learning_rate=1"], "command line: --learning_rate: does not apply to list"),
        (["evaluate", "x", "--seed=1"], "command line: --seed: does not apply to evaluate"),
        (["--epochs=1", "--top_k=2"], "command line: --top_k: does not apply to training"),
        (["list", "more"], "usage: list"),
        ([], "command line: nothing to run"),
        (["evaluate"], "usage: evaluate RUN_DIR"),
        (["predict", "runs"], "usage: predict RUN_DIR IMAGE_OR_FOLDER..."),
        (["prepare"], "usage: prepare NAME"),
        (["--random_flip", "false"], "command line: write --random_flip=false"),
        (["plot"], "usage: plot RUN_DIR"),
        (["plot", "x", "--seed=1"], "command line: --seed: does not apply to plot"),
        (["--epochs=1", "--from=x"], "command line: --from: does not apply to training"),
        (["evaluate", "/no/such/run"], "/no/such/run: not a run directory"),
    ],
)
def test_a_fault_on_the_command_line(args, message, capsys):
    assert main(args) == 2
    assert capsys.readouterr().err.startswith(message)


def test_a_fault_is_told_to_programs_too(capsys):
    assert main(["--momentum=2", "--epochs=1", "--json"]) == 2
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"error": "command line: --momentum: 2.0 is outside [0, 1)"}


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--json=1"], True),
        (["--json=t"], True),
        (["-json"], True),
        (["--json=maybe"], True),
        (["--nojson", "--json"], True),
        (["--json", "--nojson"], False),
        (["--json", "--json=false"], False),
        (["--json=0"], False),
        ([], False),
    ],
)
@pytest.mark.parametrize("command", [["--momentum=2", "--epochs=1"], ["none.flags"], ["prepare", "nothing"]])
def test_programs_are_told_where_they_ask_for_it(args, told, command, capsys):
    assert main([*command, *args]) == 2
    out, err = capsys.readouterr()
    last = (out.splitlines() or [""])[-1]
    assert last.startswith("{") == told
    assert not told or json.loads(last) == {"error": err.strip()}


def test_a_fault_is_one_line_whatever_is_in_it(capsys):
    for args in (["--a\nb=1"], ["a\nb"], ["--model=a\u2028b"], ["--run_dir=a\nb", "--steps=1"], ["--metric=a\rb", "--sweep"]):
        assert main(args) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_knob_that_is_a_number_or_a_word_takes_both_and_nothing_else():
    for text, value in (("7", 7), ("never", "never")):
        experiment = parse(["--model=lstm", "--steps=1", f"--truncation={text}"]).experiment
        assert experiment.knobs == {"truncation": value}
        experiment.validate()
    with pytest.raises(UsageError, match="truncation: 'often' is not a whole number or never"):
        parse(["--model=lstm", "--steps=1", "--truncation=often"])
    with pytest.raises(UsageError, match=r"truncation: 0 is outside \[1, 1000000\]"):
        parse(["--model=lstm", "--steps=1", "--truncation=0"]).experiment.validate()
