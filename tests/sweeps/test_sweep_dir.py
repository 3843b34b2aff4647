"""What a sweep takes for its own: it deletes, empties and replaces nothing else, whatever is in its way."""

import json
import os
import shutil

import pytest
from helpers import some

from percept_jax import files, records
from percept_jax.cli.main import main
from percept_jax.sweeps import sweep_dir

SWEEP = """--model=mlp
--hidden=4
--steps=4
--batch_size=32
--eval_every=2
--devices=1
--learning_rate={0.05,0.1}
--pack=off
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A sweep of two trials that is finished, and its file."""
    folder = tmp_path_factory.mktemp("sweeps")
    (folder / "small.sweep").write_text(SWEEP)
    assert main([str(folder / "small.sweep"), f"--run_dir={folder / 'done'}"]) == 0
    return folder


@pytest.fixture
def again(done, tmp_path):
    """The same in a folder of its own: (folder, the command)."""
    shutil.copytree(done / "done", tmp_path / "sweep", symlinks=True)
    return tmp_path / "sweep", [str(done / "small.sweep"), f"--run_dir={tmp_path / 'sweep'}"]


def everything(folder):
    return {str(p.relative_to(folder)): p.is_symlink() or p.is_dir() or p.read_bytes() for p in sorted(folder.rglob("*"))}


def refused(capsys, command, *codes):
    capsys.readouterr()
    code = main(command)
    err = capsys.readouterr().err
    assert code in codes, err
    assert err.count("\n") == 1, err
    return err


def test_fresh_leaves_what_is_not_a_trial(again, capsys):
    folder, command = again
    strangers = folder / "trials" / "0123456789ab"
    strangers.mkdir()
    (strangers / "thesis.tex").write_text("years of work")
    other = folder / "trials" / "ba9876543210"
    other.mkdir()
    (other / "provenance.json").write_text(json.dumps({"identity": "ba9876543210", "tool": "another"}))
    trial = next(path for path in folder.glob("trials/*") if (path / "result.json").exists())
    (trial / "notes.txt").write_text("mine")
    (folder / ".notes.1").write_text("mine")
    assert main([*command, "--fresh"]) == 0
    assert (strangers / "thesis.tex").read_text() == "years of work"
    assert (other / "provenance.json").exists()
    assert (trial / "notes.txt").read_text() == "mine"
    assert (folder / ".notes.1").read_text() == "mine"


@pytest.mark.parametrize("name", ["trials", "packs", ".locks", "sweep.flags", "failures.json", "plan.json", "table.md"])
@pytest.mark.parametrize("fresh", [[], ["--fresh"]])
def test_a_link_in_the_place_of_ours_is_refused(again, tmp_path, capsys, name, fresh):
    folder, command = again
    outside = tmp_path / "outside"
    if (folder / name).exists():
        (folder / name).rename(outside)
    else:
        outside.mkdir()
    (folder / name).symlink_to(outside)
    before = everything(tmp_path)
    assert name in refused(capsys, [*command, *fresh], 2, 3)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("mark", ["plan.json", "provenance.json"])
@pytest.mark.parametrize("fresh", [[], ["--fresh"]])
def test_the_folder_of_another_tool_is_refused(done, tmp_path, capsys, mark, fresh):
    folder = tmp_path / "other"
    (folder / "trials" / "0123456789ab").mkdir(parents=True)
    (folder / mark).write_text('{"name": "another tool", "file": "x", "identity": "0123456789ab"}')
    before = everything(tmp_path)
    refused(capsys, [str(done / "small.sweep"), f"--run_dir={folder}", *fresh], 2, 3)
    refused(capsys, ["--model=mlp", "--steps=2", f"--run_dir={folder}", *fresh], 2, 3)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("fresh", [[], ["--fresh"]])
def test_trials_without_a_plan_are_not_taken(again, capsys, fresh):
    folder, command = again
    (folder / "plan.json").unlink()
    before = everything(folder)
    refused(capsys, [*command, *fresh], 2)
    assert everything(folder) == before


def test_a_trial_that_another_process_holds_is_not_deleted(again, capsys):
    folder, command = again
    trial = next(path for path in folder.glob("trials/*"))
    before = everything(trial)
    with files.locked(trial / ".lock"):
        assert "another process" in refused(capsys, [*command, "--fresh"], 3)
    assert everything(trial) == before


def test_a_link_to_a_trial_elsewhere_goes_and_the_trial_stays(again, tmp_path):
    folder, command = again
    trial = next(path for path in folder.glob("trials/*"))
    elsewhere = tmp_path / "elsewhere" / trial.name
    elsewhere.parent.mkdir()
    trial.rename(elsewhere)
    trial.symlink_to(elsewhere)
    before = everything(elsewhere)
    assert main([*command, "--fresh"]) == 0
    assert everything(elsewhere) == before
    assert not trial.is_symlink()


@pytest.mark.parametrize(("calls", "then"), some([(1, []), (0, []), (0, ["--fresh"]), (1, ["--fresh"])], (1, [])))
def test_a_fresh_start_that_is_cut_short_goes_on(again, monkeypatch, calls, then):
    """After so many of its trials are deleted; with the same command, and without --fresh."""
    folder, command = again
    real, left = sweep_dir.delete_run, [calls]

    def dies(*args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(sweep_dir, "delete_run", dies)
        with pytest.raises(KeyboardInterrupt):
            main([*command, "--fresh"])
    assert records.read(folder / "plan.json", records.Plan)["clearing"]
    stamps = {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("trials/*/result.json")}
    assert main([*command, *then]) == 0
    after = {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("trials/*/result.json")}
    assert len(after) == 2
    assert all(after[name] > stamp for name, stamp in stamps.items())


def test_what_a_killed_sweep_left_half_written_goes(again):
    folder, command = again
    ours = [".plan.json.12.percept-part", ".table.md.12.percept-part", ".report.html.9.percept-part"]
    theirs = [".plan.json.12", ".mine.12.percept-part", ".table.md.x.percept-part"]
    for name in (*ours, *theirs):
        (folder / name).write_text("half")
    assert main(command) == 0
    there = os.listdir(folder)
    assert not set(ours) & set(there)
    assert set(theirs) <= set(there)


@pytest.mark.parametrize("content", some(["{}", "{", "[]", "5", "null", '"x"', "", '{"file": 3}'], "{}"))
@pytest.mark.parametrize("file", ["plan.json", "failures.json", "result.json", "provenance.json", "run.flags", "metrics.jsonl"])
def test_json_that_is_not_ours_is_one_line(again, capsys, file, content):
    folder, command = again
    place = folder if file in ("plan.json", "failures.json") else next(path for path in folder.glob("trials/*"))
    (place / file).write_text(content)
    for more in ([], ["--dry_run"], ["--fresh"]):
        capsys.readouterr()
        code = main([*command, *more])
        out, err = capsys.readouterr()
        assert code in (0, 1, 3), (more, err)
        assert err.count("\n") == (code != 0)
        if file in ("result.json", "provenance.json", "metrics.jsonl", "run.flags") and not more:
            assert code == 1
            assert file in err
            assert "(1 damaged)" in out
    assert main(["compare", str(folder)]) in (0, 3)


def test_tables_and_weights_replace_only_their_own(again, tmp_path, capsys):
    folder, _ = again
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "table.tex").write_text("by hand")
    assert "is not replaced" in refused(capsys, ["compare", str(folder), f"--to={tmp_path / 'paper'}"], 2)
    assert os.listdir(tmp_path / "paper") == ["table.tex"]
    for _ in range(2):
        assert main(["compare", str(folder), f"--to={tmp_path / 'new'}"]) == 0
    trial = str(next(folder.glob("trials/*")))
    (tmp_path / "mine.safetensors").write_bytes(b"years of training")
    assert "it is not replaced" in refused(capsys, ["export", trial, f"--to={tmp_path / 'mine.safetensors'}"], 2)
    assert (tmp_path / "mine.safetensors").read_bytes() == b"years of training"
    for _ in range(2):
        assert main(["export", trial, f"--to={tmp_path / 'new.safetensors'}"]) == 0


def test_a_refused_fresh_start_changes_nothing(again, capsys):
    """Neither at once, nor through what the other process does next, nor at the next start."""
    folder, command = again
    before = everything(folder / "trials")
    with files.locked(folder / ".locks" / "work", shared=True):
        assert "another process works on this sweep" in refused(capsys, [*command, "--fresh"], 3)
    assert not records.read(folder / "plan.json", records.Plan)["clearing"]
    assert main(command) == 0
    assert everything(folder / "trials") == before


def test_a_trial_under_the_name_of_another_is_damaged(again, capsys):
    folder, command = again
    one, other = sorted(folder.glob("trials/*"))
    shutil.rmtree(one)
    shutil.copytree(other, one)
    assert "belongs to another run" in refused(capsys, command, 1)
    main(command)
    assert "(1 damaged)" in capsys.readouterr().out


def test_what_is_beside_packs_and_logs_stays(done, tmp_path):
    folder = tmp_path / "sweep"
    (folder / ".workers").mkdir(parents=True)
    (folder / ".workers" / "0.log").write_text("mine")
    command = [str(done / "small.sweep"), f"--run_dir={folder}"]
    assert main([*command, "--workers=2"]) == 3
    assert (folder / ".workers" / "0.log").read_text() == "mine"
    (folder / "packs" / "mine").mkdir(parents=True)
    (folder / "packs" / "mine" / "step_000000010.safetensors").write_text("mine")
    assert main(command) == 0
    assert main([*command, "--fresh"]) == 0
    assert (folder / "packs" / "mine" / "step_000000010.safetensors").read_text() == "mine"


def test_tables_never_go_into_another_sweep_or_through_a_link(again, done, tmp_path, capsys):
    folder, _ = again
    before = everything(folder)
    assert "which holds the sweep's own tables" in refused(capsys, ["compare", str(done / "done"), f"--to={folder}"], 2)
    assert everything(folder) == before
    (tmp_path / "public").write_text("old")
    (folder / "table.md").unlink()
    (folder / "table.md").symlink_to(tmp_path / "public")
    refused(capsys, ["compare", str(folder)], 2, 3)
    assert (folder / "table.md").is_symlink()
    assert (tmp_path / "public").read_text() == "old"


def test_one_damaged_run_costs_a_comparison_that_run(again, capsys):
    folder, _ = again
    runs = sorted(map(str, folder.glob("trials/*")))
    for file in ("result.json", "run.flags"):
        content = (folder / "trials" / runs[0] / file).read_bytes()
        (folder / "trials" / runs[0] / file).write_text("{}")
        capsys.readouterr()
        assert main(["compare", *runs, f"--to={folder.parent / 'out'}"]) == 0
        assert "(1 damaged)" in capsys.readouterr().out
        (folder / "trials" / runs[0] / file).write_bytes(content)


@pytest.mark.parametrize("name", ["failures.json", "table.md", "trials"])
def test_what_is_no_file_or_no_folder_is_refused_at_the_door(again, capsys, name):
    folder, command = again
    if name == "trials":
        shutil.rmtree(folder / name)
        (folder / name).write_text("a file")
    else:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()
    before = everything(folder)
    for fresh in ([], ["--fresh"]):
        assert name in refused(capsys, [*command, *fresh], 2)
    assert everything(folder) == before


@pytest.mark.parametrize("plan", [
    {"arms": []}, {"arms": [{"name": "a", "flags": [], "trials": {"abc": "deadbeefdead"}}]}, {"baseline": "b"},
    {"arms": [{"name": "a", "flags": [], "trials": {"1" * 5000: "deadbeefdead"}}]}, {"name": "\ud800"},
    {"arms": [{"name": "a", "flags": [], "trials": {"1": "../../x"}}]},
])  # fmt: skip
def test_a_plan_that_makes_no_sense_is_one_line(tmp_path, capsys, plan):
    arms = [{"name": "a", "flags": [], "trials": {"1": "deadbeefdead"}}]
    (tmp_path / "s").mkdir()
    base = {"name": "x", "metric": "test/accuracy", "baseline": "a", "arms": arms}
    (tmp_path / "s" / "plan.json").write_text(json.dumps(base | plan))
    assert "plan.json: " in refused(capsys, ["compare", str(tmp_path / "s")], 3)
