"""What goes wrong in a sweep costs itself: a fault while a program is prepared, a full disk, a parent that is killed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT
from helpers.sweeps import EIGHT, Command, assert_same_trials, finished_at, step

KILL = ROOT / "tests" / "helpers" / "kill.py"


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(write_sweep, tmp_path):
    path, folder = write_sweep(base=EIGHT), tmp_path / "sweep"
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
def test_a_full_disk_ends_a_sweep_as_it_ends_a_run(write_sweep, tmp_path, more):
    """On a file system of its own; needs the right to mount one."""
    path, place = write_sweep(base=[*EIGHT, "--steps=20000", "--log_every=1"]), tmp_path / "tiny"
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
def test_a_sweep_killed_twenty_times_has_the_same_bits(write_sweep, tmp_path):
    """Fourteen times inside a save; nothing half written is left."""
    path = write_sweep(base=[*EIGHT, "--checkpoint_every=10"])
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
