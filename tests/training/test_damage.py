"""Every file that is read back, damaged in every way: what is found is what was written, or one line says that it is not."""

import contextlib
import dataclasses
import functools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from percept_jax import load, train
from percept_jax.analysis.load import load as load_arms
from percept_jax.errors import Interrupted, PerceptError
from percept_jax.tasks import TASKS
from percept_jax.training import checkpoint
from percept_jax.training.pack_checkpoints import PackCheckpoints
from percept_jax.training.run_dir import RunDir
from percept_jax.training.trial import Trial

READ = ("provenance.json", "result.json", "metrics.jsonl", "run.flags", "checkpoints/step_000000015.safetensors",
        "checkpoints/step_000000020.safetensors", "checkpoints/step_000000010.safetensors")  # fmt: skip
# 500 cases with --slow.
CASES = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), print_blob=False, database=None)
DAMAGE = st.tuples(
    st.sampled_from(READ),
    st.sampled_from(["flip", "flip", "flip", "truncate", "delete", "swap", "append", "empty", "other"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 7),
)
OTHERS = (b"{}", b"[]", b"5", b"null", b'"text"', b"\xff\xfe", b"[" * 100_000, b'{"step": 3}\n', b"NaN", b'{"checksum": 1}')


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run, an interrupted one, and the same of another seed; beside each a file of somebody else's."""
    from percept_jax import Experiment

    folder = tmp_path_factory.mktemp("made")
    base = Experiment(model="mlp", steps=20, batch_size=32, learning_rate=0.05, eval_every=10, devices=1, log_every=5,
                      checkpoint_every=5, knobs={"hidden": (4,)})  # fmt: skip
    experiments = {}
    for name, seed in (("finished", 0), ("cut", 0), ("finished-other", 1), ("cut-other", 1)):
        experiments[name] = dataclasses.replace(base, seed=seed, run_dir=str(folder / name))
        countdown = iter(range(14, -1, -1)) if name.startswith("cut") else iter([1] * 100)
        with contextlib.suppress(Interrupted):
            train(experiments[name], interrupted=functools.partial(lambda left: None if next(left) else 15, countdown))
        (folder / name / "thesis.tex").write_text("years of work")
        (folder / name / ".notes.1").write_text("more of it")
        (folder / name / "checkpoints" / "mine.pt").write_text("mine")
        (folder / name / "link").symlink_to(folder / name / "thesis.tex")
    return folder, experiments


def damage(path, other, kind, share, bit):
    """Damages a file; whether it was there."""
    if not path.exists():
        return False
    content = bytearray(path.read_bytes())
    at = int(share * len(content))
    if kind == "flip":
        content[at] ^= 1 << bit
    elif kind == "truncate":
        content = content[:at]
    elif kind == "append":
        content += content[at:]
    elif kind == "empty":
        content = b""
    elif kind == "other":
        content = OTHERS[int(share * len(OTHERS))]
    elif kind == "swap":
        content = other.read_bytes() if other.exists() else b""
    path.unlink() if kind == "delete" else path.write_bytes(content)
    return True


def theirs(folder):
    names = ("thesis.tex", ".notes.1", "checkpoints/mine.pt", "link")
    return [(name, (folder / name).read_text(), (folder / name).is_symlink()) for name in names]


def one_line(error):
    assert "\n" not in str(error)
    assert error.exit_code in (2, 3), error


@CASES
@given(DAMAGE)
def test_a_finished_run_is_read_as_it_was_or_not_at_all(made, tmp_path_factory, case):
    folder, _ = made
    file, *how = case
    path = tmp_path_factory.mktemp("case") / "run"
    shutil.copytree(folder / "finished", path, symlinks=True)
    before, right = theirs(path), load(folder / "finished")
    wanted = json.loads((folder / "finished" / "result.json").read_text())
    damage(path / file, folder / "finished-other" / file, *how)
    try:
        found = load(path)
        if found.result is not None:
            assert found.result == wanted
        assert found.best_step in (10, 20) if found.result is None else found.best_step == right.best_step
        if found.best_step == right.best_step:
            jax.tree.map(np.testing.assert_array_equal, found.variables, right.variables)
    except PerceptError as error:
        one_line(error)
    try:
        loaded = load_arms([path, folder / "finished-other"])
        result = next(o.result for arm in loaded.arms for o in arm.outcomes if o.seed == 0)
        assert result is None or result == wanted
    except PerceptError as error:
        one_line(error)
    except StopIteration:
        pytest.fail("the trial is not told of")
    assert theirs(path) == before
    shutil.rmtree(path)


@CASES
@given(DAMAGE)
def test_an_interrupted_run_goes_on_from_what_was_saved_or_says_why_not(made, tmp_path_factory, case):
    folder, experiments = made
    file, *how = case
    path = tmp_path_factory.mktemp("case") / "run"
    shutil.copytree(folder / "cut", path, symlinks=True)
    before, experiment = theirs(path), experiments["cut"]
    right = {step: checkpoint.read(folder / "cut" / "checkpoints", step) for step in (10, 15)}
    log = (folder / "cut" / "metrics.jsonl").read_bytes()
    template = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in right[15][0].items()}
    damage(path / file, folder / "cut-other" / file, *how)
    held = None
    try:
        held = RunDir(path, dataclasses.replace(experiment, run_dir=str(path)))
        found = PackCheckpoints([Trial(experiment, held)]).newest(20, [{}], template)
        if found is None:
            assert not checkpoint.steps(path / "checkpoints")
        else:
            arrays, header = found[0][0]
            assert header == right[header["step"]][1]
            assert all(arrays[name].tobytes() == array.tobytes() for name, array in right[header["step"]][0].items())
            assert header["step"] == 15 or found[1] or not checkpoint.path_of(path / "checkpoints", 15).exists()
            held.begin(header["step"], ["cpu:0"], TASKS["classification"], 1, header["log"])
            assert log.startswith((path / "metrics.jsonl").read_bytes())
            assert (path / "metrics.jsonl").read_bytes().count(b"\n") == header["log"]["lines"]
    except PerceptError as error:
        one_line(error)
    finally:
        if held:
            held.close()
    assert theirs(path) == before
    shutil.rmtree(path)


def test_every_bit_of_a_checkpoints_header_counts(made):
    """Of all single flips in the header none goes unnoticed."""
    folder, _ = made
    file = checkpoint.path_of(folder / "cut" / "checkpoints", 15)
    content = file.read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    _, header = checkpoint.read(file.parent, 15)
    copy = folder / "flips" / file.name
    copy.parent.mkdir()
    for at in range(0, length, 7):  # each bit of every seventh byte
        for bit in range(8):
            damaged = bytearray(content)
            damaged[at] ^= 1 << bit
            copy.write_bytes(damaged)
            with pytest.raises(PerceptError):
                checkpoint.read(copy.parent, 15)
    copy.write_bytes(content)
    assert checkpoint.read(copy.parent, 15)[1] == header


@pytest.mark.parametrize("change", [{"step": 14}, {"step": 10**9}, {"steps": 10}, {"identity": "0" * 12}, {"progress": {}},
                                    {"log": {"lines": 3, "digest": "0" * 32}}, {"seconds": {"train": "long"}}])  # fmt: skip
def test_a_whole_checkpoint_that_makes_no_sense_is_passed_over(made, tmp_path, change, capsys):
    """As a damaged one is: the one before it is taken, and the run ends with the bits that it has anyway."""
    from percept_jax import files

    folder, experiments = made
    path = tmp_path / "run"
    shutil.copytree(folder / "cut", path, symlinks=True)
    file = checkpoint.path_of(path / "checkpoints", 15)
    arrays, header = checkpoint.read(path / "checkpoints", 15)
    files.write_arrays(file, arrays, {**header, **change})
    again = train(dataclasses.replace(experiments["cut"], run_dir=str(path)))
    said = capsys.readouterr().out
    assert f"skipped: {path}" in said
    assert "resuming at step 10" in said
    assert again.result["test"] == load(folder / "finished").result["test"]


def test_missing_metrics_are_noticed(made, tmp_path):
    folder, experiments = made
    path = Path(shutil.copytree(folder / "cut", tmp_path / "run", symlinks=True))
    (path / "metrics.jsonl").unlink()
    with pytest.raises(PerceptError, match=r"metrics.jsonl: damaged: its first \d lines are not those"):
        train(dataclasses.replace(experiments["cut"], run_dir=str(path)))
