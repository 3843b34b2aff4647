"""A run: what it leaves, what it refuses, and what is read back."""

import csv
import dataclasses
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers import some
from helpers.runs import assert_same_bits, logged, read_metrics, start

from percept_jax import load, train
from percept_jax.cli.main import main
from percept_jax.errors import DataError, Interrupted, StorageError, UsageError
from percept_jax.training import checkpoint
from percept_jax.training.identity import flag_lines, identity
from percept_jax.training.loop import train_pack
from percept_jax.training.reporter import Reporter
from percept_jax.training.run_dir import RunDir
from percept_jax.training.trial import Trial


def test_a_run_leaves_a_complete_directory(small):
    run = train(small)
    names = {p.name for p in run.path.iterdir()}
    wanted = {"run.flags", "provenance.json", "metrics.jsonl", "checkpoints", "training.png", "confusion.png", "result.json"}
    assert wanted <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert (run.path / "training.png").read_bytes().startswith(b"\x89PNG")

    result = run.result
    assert result["status"] == "done"
    assert result["steps"] == 20
    assert result["parameters"] == 64 * 16 + 16 + 16 * 10 + 10
    assert set(result["seconds"]) == {"start", "compile", "train", "eval", "waiting_for_data"}
    assert 0 < result["goodput"] < 1
    assert (result["restarts"], result["redone_steps"]) == (0, 0)
    assert result["test"]["examples"] == 360

    lines = read_metrics(run.path)
    train_lines = [line for line in lines if line["split"] == "train"]
    assert [line["step"] for line in train_lines] == [5, 10, 15, 20]
    assert all(line["examples"] == 5 * 32 for line in train_lines)
    assert [line["step"] for line in lines if line["split"] == "validation"] == [10, 20]
    assert [line["step"] for line in lines if line["split"] == "test"] == [20]
    assert lines[0]["epoch"] == pytest.approx(5 * 32 / 1077)

    provenance = json.loads((run.path / "provenance.json").read_text())
    assert provenance["identity"] == identity(small)
    assert provenance["versions"]["jax"]
    assert len(provenance["devices"]) == 1

    with open(run.path / "confusion.csv", newline="") as file:
        counts = np.array([row[1:] for row in list(csv.reader(file))[1:]], int)
    assert counts.sum() == 360
    assert np.trace(counts) == round(result["test"]["accuracy"] * 360)


def test_event_file_holds_what_metrics_jsonl_holds(small):
    from tensorboardX.proto.event_pb2 import Event

    run = train(small)
    content = next(run.path.glob("events.out.tfevents.*")).read_bytes()
    found = {}
    while content:  # TFRecord: length (8), its CRC (4), the record, its CRC (4)
        length = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + length])
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        content = content[16 + length :]
    for line in read_metrics(run.path):
        assert found[f"{line['split']}/loss", line["step"]] == pytest.approx(line["loss"])


def test_the_best_step_is_chosen_on_validation_and_its_weights_are_tested(small):
    run = train(dataclasses.replace(small, steps=60, learning_rate=0.3, eval_every=3))
    validations = [line for line in read_metrics(run.path) if line["split"] == "validation"]
    best = max(validations, key=lambda line: (line["accuracy"], -line["loss"], -line["step"]))
    assert run.result["best_step"] == best["step"] == run.best_step
    assert run.result["validation"]["loss"] == best["loss"]
    assert run.evaluate() == {"validation": run.result["validation"], "test": run.result["test"]}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_and_another_seed_another_run(small):
    runs = [train(dataclasses.replace(small, run_dir=f"{small.run_dir}{i}", seed=int(i == 2))) for i in range(3)]
    assert_same_bits(runs[0].path, runs[1].path)
    assert logged(runs[0].path) != logged(runs[2].path)


def test_a_finished_run_is_not_run_again(small):
    first = train(small)
    before = (first.path / "result.json").stat().st_mtime_ns
    again = train(dataclasses.replace(small, log_every=1, checkpoint_every=7))
    assert again.result == first.result
    assert (first.path / "result.json").stat().st_mtime_ns == before
    train(dataclasses.replace(small, fresh=True))
    assert (first.path / "result.json").stat().st_mtime_ns > before


def test_a_loss_that_is_not_finite_ends_the_run_and_says_so(small):
    wild = dataclasses.replace(small, learning_rate=1e30)
    with pytest.raises(DataError, match="not finite at step"):
        train(wild)
    result = json.loads(Path(wild.run_dir, "result.json").read_text())
    assert result["status"] == "diverged"
    assert result["test"] is None
    with pytest.raises(DataError, match="not finite"):
        train(wild)


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_taken(small, capsys):
    run = train(dataclasses.replace(small, checkpoint_every=5))
    directory = run.path / "checkpoints"
    newest = checkpoint.path_of(directory, 20)
    content = bytearray(newest.read_bytes())
    content[-3] ^= 4
    newest.write_bytes(content)
    with pytest.raises(StorageError, match="damaged"):  # the one before has other weights than the result tells of
        load(run.path)
    (run.path / "result.json").unlink()
    assert load(run.path).best_step == 10
    assert capsys.readouterr().err.startswith(f"skipped: {newest}: damaged")
    again = train(dataclasses.replace(small, checkpoint_every=5))
    assert "resuming at step 15" in capsys.readouterr().out
    assert again.result["test"] == run.result["test"]
    for step in (15, 20):
        checkpoint.path_of(directory, step).write_bytes(b"")
    with pytest.raises(StorageError, match="cannot be read"):
        load(run.path)


def test_a_checkpoint_of_another_shape_or_dtype_is_refused():
    import jax

    template = {"w": jax.ShapeDtypeStruct((2, 3), np.dtype("float32"))}
    for bad in (np.zeros((3, 2), "float32"), np.zeros((2, 3), "float64")):
        with pytest.raises(StorageError, match="w: expected"):
            checkpoint.unflatten({"w": bad}, template)
    with pytest.raises(StorageError, match="v: expected nothing"):
        checkpoint.unflatten({"w": np.zeros((2, 3), "float32"), "v": np.zeros(1)}, template)


def test_an_interrupted_fresh_start_leaves_a_directory_that_works(small):
    """What a kill between two files can leave: no result, no flags, half a file."""
    run = train(small)
    for name in ("result.json", "run.flags", "metrics.jsonl"):
        (run.path / name).unlink()
    half = run.path / "checkpoints" / ".step_000000020.safetensors.123.percept-part"
    half.write_text("half")
    again = train(dataclasses.replace(small, fresh=True))
    assert again.result["test"] == run.result["test"]
    assert not half.exists()
    for path in (run.path / "checkpoints").iterdir():
        path.unlink()
    assert main([*flag_lines(small), f"--run_dir={run.path}", "--devices=1"]) == 0  # its result is shown without weights


def test_fresh_deletes_only_what_is_ours(small):
    run = train(small)
    (run.path / "checkpoints" / "mine.pt").write_text("mine")
    (run.path / "notes.txt").write_text("mine")
    train(dataclasses.replace(small, fresh=True))
    assert (run.path / "checkpoints" / "mine.pt").exists()
    assert (run.path / "notes.txt").exists()


def test_a_run_directory_behind_a_link_is_the_directory(small, tmp_path):
    run = train(small)
    (tmp_path / "link").symlink_to(run.path)
    (run.path / ".provenance.json.7.percept-part").write_text("half")
    again = train(dataclasses.replace(small, run_dir=str(tmp_path / "link"), fresh=True))
    assert again.result["test"] == run.result["test"]
    assert not list(run.path.glob("*.percept-part"))
    assert checkpoint.steps(run.path / "checkpoints")


def test_a_checkpoint_of_another_run_is_refused(small, tmp_path):
    run = train(dataclasses.replace(small, run_dir=str(tmp_path / "other"), seed=1))
    mine = train(small)
    (mine.path / "result.json").unlink()
    for path in (mine.path / "checkpoints").iterdir():
        path.write_bytes((run.path / "checkpoints" / path.name).read_bytes())
    with pytest.raises(StorageError, match="belongs to another run"):
        train(small)


@pytest.mark.slow
def test_a_full_disk_ends_the_run_with_one_line(small, tmp_path):
    """On a file system of its own; needs the right to mount one."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        process = start(dataclasses.replace(small, steps=3000, eval_every=1000, log_every=1, run_dir=str(folder / "run")))
        out, err = process.communicate(timeout=120)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
    assert process.returncode == 3, (out, err)
    assert err.count("\n") == 1
    assert "No space left" in err


def test_a_run_directory_is_held_by_one_process_and_belongs_to_one_run(small, tmp_path):
    train(small)
    with pytest.raises(UsageError, match=r"another run \(its --learning_rate=0.05, yours --learning_rate=0.02\)"):
        train(dataclasses.replace(small, learning_rate=0.02))
    held = RunDir(Path(small.run_dir), small)
    with pytest.raises(StorageError, match="another process"):
        RunDir(Path(small.run_dir), small)
    held.close()
    (tmp_path / "home" / "checkpoints").mkdir(parents=True)
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    for fresh in (False, True):
        with pytest.raises(UsageError, match="not a run"):
            train(dataclasses.replace(small, run_dir=str(tmp_path / "home"), fresh=fresh))
    assert (tmp_path / "home" / "thesis.tex").exists()


def test_trained_on_arrays_of_ones_own(small, tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    images = rng.integers(0, 100, (300, 6, 9, 3)).astype(np.uint8)
    images[np.arange(300), :, labels * 3, labels] = 255  # a line that tells the class by place and color
    run = train(dataclasses.replace(small, steps=200), data=(images, labels))
    assert run.result["test"]["accuracy"] > 0.95
    assert (run.predict(images).labels == labels).mean() > 0.95
    assert load(run.path).predict(images[:4]).probabilities.shape == (4, 3)
    np.testing.assert_allclose(run.predict(images[:5]).probabilities.sum(1), 1, rtol=1e-6)
    with pytest.raises(UsageError, match="trained on arrays passed from Python"):
        run.evaluate()
    with pytest.raises(UsageError, match=r"uint8 \[height, width, 3\]"):
        run.predict(images[..., 0])
    for bad in ((images / 255, labels), (images, labels[1:]), (images, labels - 1), (images[:2], labels[:2])):
        with pytest.raises(UsageError):
            train(dataclasses.replace(small, run_dir=str(tmp_path / "never")), data=bad)
    with pytest.raises(UsageError, match="cannot take images of 8 pixels"):
        train(
            dataclasses.replace(small, model="lenet5", knobs={}, image_size=8, run_dir=str(tmp_path / "never")),
            data=(images, labels),
        )
    with pytest.raises(UsageError, match="another run"):  # the same bytes in another shape are other data
        train(dataclasses.replace(small, steps=200), data=(images.reshape(300, 9, 6, 3), labels))
    assert not (tmp_path / "never").exists()


def test_prediction_sees_what_evaluation_saw(small, digits):
    run = train(small)
    index = digits.spec.roles["test"]
    predicted = run.predict(digits.inputs[index]).labels
    assert (predicted == digits.examples["label"][index]).mean() == run.result["test"]["accuracy"]


@pytest.mark.parametrize("loss", some(["binary_cross_entropy", "quadratic", "perceptron"], "binary_cross_entropy"))
def test_prediction_is_evaluation_where_probabilities_round_to_equals(small, digits, loss):
    """Pixels of 0 to 255 make outputs of hundreds, whose sigmoids are 0 or 1 to the computer."""
    run = train(dataclasses.replace(small, model="linear", knobs={}, loss=loss, normalize="none", learning_rate=0.01, steps=100))
    index = digits.spec.roles["test"]
    predicted = run.predict(digits.inputs[index])
    assert (predicted.labels == digits.examples["label"][index]).mean() == run.result["test"]["accuracy"]
    np.testing.assert_allclose(predicted.probabilities.sum(1), 1, rtol=1e-5)
    assert np.abs(predicted.logits).max() > 50


def test_a_pack_leaves_every_trial_its_own_complete_directory(small, digits, tmp_path):
    """Seeds and traced numbers differ, one trial diverges, the pack is interrupted; the others are what they are alone."""
    base = dataclasses.replace(small, dtype="float64", steps=30)
    experiments = [
        dataclasses.replace(base, run_dir=str(tmp_path / str(k)), seed=k, learning_rate=rate, dropout_rate=drop)
        for k, (rate, drop) in enumerate(((0.05, 0.05), (1e300, 0.0), (0.02, 0.2)))
    ]

    def run_pack(interrupted=lambda: None):
        run_dirs = [RunDir(Path(e.run_dir), e) for e in experiments]
        try:
            trials = [Trial(*pair) for pair in zip(experiments, run_dirs, strict=True)]
            return train_pack(trials, digits, Reporter(), interrupted)
        finally:
            for run_dir in run_dirs:
                run_dir.close()

    countdown = iter(range(14, -1, -1))
    with pytest.raises(Interrupted, match="at step 15"):
        run_pack(lambda: None if next(countdown) else 15)
    results = run_pack()
    assert [r["status"] for r in results] == ["done", "diverged", "done"]
    assert [r["restarts"] for r in results] == [1, 1, 1]
    assert [r["redone_steps"] for r in results] == [0, 0, 0]
    for k in (0, 2):
        alone = train(dataclasses.replace(experiments[k], run_dir=str(tmp_path / f"alone{k}")))
        together = load(tmp_path / str(k))
        assert together.result["test"]["accuracy"] == alone.result["test"]["accuracy"]
        losses = [[line["loss"] for line in logged(run.path)] for run in (together, alone)]
        np.testing.assert_allclose(*losses, rtol=1e-9)
    experiments[1] = dataclasses.replace(experiments[0], batch_size=16, run_dir=str(tmp_path / "odd"))
    with pytest.raises(UsageError, match="another run"):
        RunDir(tmp_path / "0", experiments[1])
    with pytest.raises(ValueError, match="differ in more than traced values"):
        run_pack()


def test_data_that_changed_under_a_run_are_noticed(small, digits):
    changed = digits._replace(examples={**digits.examples, "label": (digits.examples["label"] + 1) % 10})
    countdown = iter([None] * 8 + [15] * 10)
    for dataset, error in ((digits, Interrupted), (changed, UsageError)):
        run_dir = RunDir(Path(small.run_dir), small)
        try:
            with pytest.raises(error, match=r"at step 9|has changed since"):
                train_pack([Trial(small, run_dir)], dataset, Reporter(), lambda: next(countdown))
        finally:
            run_dir.close()


def test_ordinary_python_values_are_understood(small):
    run = train(
        dataclasses.replace(
            small, run_dir=Path(small.run_dir), knobs={"hidden": [16]}, seed=np.int64(0), learning_rate=np.float64(0.05)
        )
    )
    assert identity(run.experiment) == identity(small)


def test_a_name_is_no_path(small):
    with pytest.raises(UsageError, match="cannot be the name of a folder"):
        train(dataclasses.replace(small, run_dir=""), name="../elsewhere")


def test_images_may_be_higher_than_wide(small):
    """Trained, restored from its flags and predicted at the height and width of the flag."""
    run = train(dataclasses.replace(small, image_size=(10, 6)))
    assert run.variables["params"]["Dense_0"]["kernel"].shape == (60, 16)
    assert run.predict([np.zeros((8, 8), np.uint8)]).labels.shape == (1,)
    assert "--image_size=10,6" in (run.path / "run.flags").read_text()
    assert main([str(run.path / "run.flags"), f"--run_dir={run.path}"]) == 0
    assert load(run.path).evaluate()["test"] == run.result["test"]
