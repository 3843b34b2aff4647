"""What goes wrong in a sweep costs itself: a fault while a program is prepared, a full disk, a parent that is killed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_sweeps import EIGHT, Command, assert_same_trials, finished_at, read_metrics, step, table, write  # noqa: F401 (a fixture)

from percept_jax.cli.main import main
from percept_jax.errors import DataError
from percept_jax.sweeps import pack_width
from percept_jax.sweeps.workers import Worker

KILL = Path(__file__).with_name("_kill.py")


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
def test_what_fails_while_a_program_is_prepared_costs_its_trials_alone(write, tmp_path, monkeypatch, capsys, pack, where):  # noqa: F811
    path, folder = write("--hidden={24,16}", "--seeds=2"), tmp_path / "sweep"

    def bad(real, experiment):
        def fails(*args, **kwargs):
            if experiment(*args).knobs["hidden"] == (24,):
                raise DataError("a bad record")
            return real(*args, **kwargs)

        return fails

    with monkeypatch.context() as patched:
        if where == "choose":
            patched.setattr(pack_width, "choose", bad(pack_width.choose, lambda subject, *_: subject.experiment))
        name = {"load": "_dataset", "compile": "_functions"}.get(where)
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


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(write, tmp_path):  # noqa: F811
    path, folder = write(base=EIGHT), tmp_path / "sweep"
    command = Command(path, folder, "--pack=2", "--workers=2")
    command.until(lambda: step(folder) > 100)
    workers = command.workers()
    assert len(workers) == 2
    command.kill()
    for _ in range(300):
        if not any(Path(f"/proc/{pid}").exists() for pid in workers):
            break
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    Command(path, folder, "--pack=2").ends()
    assert len(finished_at(folder)) == 8


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--workers=2"]])
def test_a_full_disk_ends_a_sweep_as_it_ends_a_run(write, tmp_path, more):  # noqa: F811
    """On a file system of its own; needs the right to mount one."""
    path, place = write(base=[*EIGHT, "--steps=20000", "--log_every=1"]), tmp_path / "tiny"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("cannot mount a small file system here")
    command = [sys.executable, "-P", "-m", "percept_jax", str(path), f"--run_dir={place / 'sweep'}", "--pack=off", *more]
    try:
        ended = subprocess.run(command, env={**os.environ, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, timeout=240)
    finally:
        subprocess.run(["umount", "-l", place], check=True)
    assert ended.returncode == 3, (ended.stdout, ended.stderr)
    assert "No space left" in ended.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_sweep_killed_twenty_times_has_the_same_bits(write, tmp_path):  # noqa: F811
    """Fourteen times inside a save; nothing half written is left."""
    path = write(base=[*EIGHT, "--checkpoint_every=10"])
    straight, killed = tmp_path / "straight" / "sweep", tmp_path / "killed" / "sweep"
    Command(path, straight, "--pack=2").ends()
    draws = random.Random(1)
    moments = [(draws.randint(2, 12), draws.choice(["half", "flushed", "replaced"])) for _ in range(14)]
    moments += [(draws.uniform(3, 9), "time") for _ in range(6)]
    draws.shuffle(moments)
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    for when, stage in moments:
        if stage == "time":
            command = Command(path, killed, "--pack=2")
            time.sleep(when)
            command.kill()
        else:
            arguments = [sys.executable, KILL, str(when), stage, str(path), f"--run_dir={killed}", "--pack=2"]
            ended = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=240)
            assert ended.returncode in (-signal.SIGKILL, 0), ended.stderr
    Command(path, killed, "--pack=2").ends()
    assert_same_trials(straight, killed)
    assert not [p for p in killed.rglob("*") if "percept-part" in p.name]
    assert not list(killed.glob("packs/*"))
