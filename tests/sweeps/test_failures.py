"""Sweeps that are refused, and sweeps in which trials fail."""

import collections

import pytest
from helpers.sweeps import BASE, failing, finished_at, refused, run, sweep, table, trials

from percept_jax.cli.main import main
from percept_jax.errors import DataError
from percept_jax.sweeps import pack_width
from percept_jax.sweeps.workers import Worker

FIRST = len(BASE) + 1  # number of the line below
FAULTS = {  # lines of the file, arguments, what is said: of the first line below the base, N lines on, or of the command line
    "unknown flag": ("[a]|--momentum=0.5|[b]|--momentum=0.6|[c]|--learning_rat=0.1", "", 5, "unknown name '--learning_rat'"),
    "empty brace": ("--momentum={}", "", 0, "--momentum: no value between the braces"),
    "open brace": ("--momentum={0.5", "", 0, "--momentum: '{0.5' has unbalanced braces"),
    "duplicate arm": ("[a]|--momentum=0.5|[a]|--momentum=0.6", "", 2, "a second arm 'a'"),
    "unequal zip": ("--momentum={0.5,0.6}|--beta2={0.1,0.2,0.3}|--zip=momentum,beta2", "", 2, "--zip: unequal lengths"),
    "metric": ("--metric=test/rmse", "", 0, "--metric: unknown name 'test/rmse'"),
    "metric on the command line": ("", "--metric=test/rmse", None, "--metric: unknown name 'test/rmse'"),
    "too many": ("--seeds=1000000", "", 0, "--seeds: 1000000 trials; at most 10000"),
    "value": ("--momentum={0.1,0.5,1.5,0.9}", "", 0, "--momentum: 1.5 is outside [0, 1)"),
    "value of an arm": ("[a]|--momentum=0.5|[b]|--momentum={0.6,1}", "", 3, "--momentum: 1.0 is outside [0, 1)"),
    "tuned value": ("--momentum=0.9|--tune=momentum={0.5,2}", "", 1, "--momentum: 2.0 is outside [0, 1)"),
    "batch of an arm": ("--devices=4|--pack=off|[a]|--batch_size=30", "", 3, "--batch_size: 30 examples cannot be split"),
    "devices": ("[a]|--devices=9", "", 1, "--devices: 9 devices requested, 8 available"),
    "model of an arm": ("[a]|--model=linear", "", None, "--hidden: a flag of mlp"),
    "image size": ("--model=cnn|[a]|--model=lenet5|--image_size=8", "", None, "--hidden"),
    "pack": ("", "--pack=0", None, "--pack: '0' is not auto, off or a number"),
    "pack in the file": ("--pack=0", "", 0, "--pack: '0' is not auto, off or a number"),
    "shard": ("", "--shard=2/2", None, "--shard: '2/2' is not i/n"),
    "workers": ("", "--workers=0", None, "--workers: 0 is outside [1, 256]"),
    "workers and shard": ("", "--workers=2 --shard=0/2", None, "--shard: give --shard or --workers, not both"),
    "seed of an arm": ("[a]|--seed=3", "", 1, "--seed: use --seeds in a sweep"),
    "seed": ("", "--seed=3", None, "--seed: use --seeds in a sweep"),
    "seeds": ("--seeds={4294967295,4294967296}", "", 0, "--seeds: 4294967296 is outside [0, 4294967295]"),
    "flag file": ("--flagfile=none.flags", "", 0, "--flagfile: FOLDER/none.flags: no such file"),
    "baseline": ("--baseline=b|[a]|--momentum=0.5", "", 0, "--baseline: unknown name 'b'"),
    "run_dir of an arm": ("[a]|--run_dir=x", "", 1, "--run_dir: applies to the whole sweep"),
    "to": ("", "--to=x", None, "--to: does not apply to a sweep"),
}
WHERE = {"model of an arm": 1, "image size": 0}  # at the base's --hidden


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(write_sweep, tmp_path, capsys, fault):
    lines, args, line, said = FAULTS[fault]
    path = write_sweep(*lines.split("|"))
    where = "command line" if line is None else f"my.sweep:{FIRST + line}"
    if fault in WHERE:
        where = f"my.sweep:{1 + BASE.index('--hidden=16')}"
    found = refused(capsys, tmp_path, [str(path), f"--run_dir={tmp_path / 'sweep'}", *args.split()])
    assert found.startswith(f"{where}: {said.replace('FOLDER', str(tmp_path))}")


def test_a_file_that_is_not_there_and_a_folder_that_is_another_s(write_sweep, tmp_path, capsys):
    assert refused(capsys, tmp_path, ["none.sweep"]) == "command line: none.sweep: no such file\n"
    path = write_sweep("--seeds=2")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    for fresh in ([], ["--fresh"]):
        for folder in (tmp_path / "home", tmp_path / "home" / "thesis.tex"):
            found = refused(capsys, tmp_path, [str(path), f"--run_dir={folder}", *fresh])
            assert found.startswith("command line: --run_dir: ")


@pytest.mark.parametrize("order", ["{24,16}", pytest.param("{16,24}", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_crash_is_tried_twice_then_reported_and_the_rest_is_done(write_sweep, tmp_path, monkeypatch, capsys, order):
    path, folder = write_sweep(f"--hidden={order}", "--seeds=2"), tmp_path / "sweep"
    with monkeypatch.context() as patched:
        tried = failing(patched, lambda e: e.knobs["hidden"] == (24,))
        assert sweep(path, folder, "--pack=2") == 1
    bad, good = ([trials(folder)[f"hidden={n}", seed] for seed in (0, 1)] for n in (24, 16))
    counts = collections.Counter(tried)
    together = [tuple(p.name for p in pack) for pack in (bad, good)]
    assert counts == dict.fromkeys([*together, *((p.name,) for p in bad)], 1)  # the second time each alone
    assert finished_at(folder).keys() == {p.name for p in good}
    out, err = capsys.readouterr()
    assert err == "2 of 4 trials failed (RuntimeError: a fault); the same command tries them again\n"
    assert "(2 failed)" in out
    assert table(folder)["hidden=24"]["failed"] == "2"
    before = finished_at(folder)
    run(path, folder, "--pack=2")
    assert before.items() <= finished_at(folder).items()
    assert table(folder)["hidden=24"]["failed"] == "0"
    assert len(finished_at(folder)) == 4


def test_one_crash_among_many_packs_leaves_the_others_alone(write_sweep, tmp_path, monkeypatch):
    path, folder = write_sweep("--seeds=3"), tmp_path / "sweep"
    tried = failing(monkeypatch, lambda e: e.seed == 1)
    assert sweep(path, folder, "--pack=off") == 1
    assert [tried.count((trials(folder)["baseline", seed].name,)) for seed in (0, 1, 2)] == [1, 2, 1]
    assert sweep(path, folder, "--pack=off") == 1  # tried twice again
    assert [tried.count((trials(folder)["baseline", seed].name,)) for seed in (0, 1, 2)] == [1, 4, 1]


def test_the_sweep_stops_early_where_every_program_fails_at_first(write_sweep, tmp_path, monkeypatch, capsys):
    path, folder = write_sweep("--hidden={16,24}", "--seeds=3"), tmp_path / "sweep"
    tried = failing(monkeypatch, lambda e: True)
    assert sweep(path, folder, "--pack=off") == 1
    assert sorted(collections.Counter(tried).values()) == [2, 2]
    assert len(list((folder / "trials").iterdir())) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_tuning_that_fails_is_a_failed_sweep(write_sweep, tmp_path, monkeypatch):
    path, folder = write_sweep("--tune=learning_rate={0.01,0.05}", "[wide]", "--hidden=24"), tmp_path / "sweep"
    failing(monkeypatch, lambda e: e.knobs["hidden"] == (24,))
    assert sweep(path, folder) == 1
    assert len(finished_at(folder)) == 3
    assert table(folder)["baseline"]["mean"]


@pytest.mark.parametrize(
    ("where", "pack"),
    [
        ("choose", "auto"),
        ("load", "2"),
        ("compile", "off"),
        *(
            pytest.param(where, pack, marks=pytest.mark.slow)
            for where, pack in [
                ("choose", "2"),
                ("choose", "off"),
                ("load", "auto"),
                ("load", "off"),
                ("compile", "auto"),
                ("compile", "2"),
            ]
        ),
    ],
)
def test_what_fails_while_a_program_is_prepared_costs_its_trials_alone(write_sweep, tmp_path, monkeypatch, capsys, pack, where):
    path, folder = write_sweep("--hidden={24,16}", "--seeds=2"), tmp_path / "sweep"

    def bad(real, experiment):
        def fails(*args, **kwargs):
            if experiment(*args).knobs["hidden"] == (24,):
                raise DataError("a bad record")
            return real(*args, **kwargs)

        return fails

    with monkeypatch.context() as patched:
        if where == "choose":
            patched.setattr(pack_width, "choose", bad(pack_width.choose, lambda subject, *_: subject.experiment))
        name = {"load": "_dataset", "compile": "_compiled_program"}.get(where)
        if name:
            patched.setattr(Worker, name, bad(getattr(Worker, name), lambda self, key, experiment, *_: experiment))
        code = main([str(path), f"--run_dir={folder}", f"--pack={pack}"])
    out, err = capsys.readouterr()
    if where == "choose" and pack != "auto":
        assert code == 0
        return
    assert code == 1
    assert err == "2 of 4 trials failed (a bad record); the same command tries them again\n"
    assert "(2 failed)" in out
    assert table(folder)["hidden=16"]["mean"]
    assert main([str(path), f"--run_dir={folder}", f"--pack={pack}"]) == 0
    assert len(finished_at(folder)) == 4
