"""SIGKILL at twenty seeded moments, most of them inside a save: the same bits, and nothing half written is left."""

import dataclasses
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT
from helpers.runs import assert_same_bits, start

from percept_jax import load
from percept_jax.training.identity import flag_lines

KILL = ROOT / "tests" / "helpers" / "kill.py"


@pytest.mark.slow
def test_a_run_killed_twenty_times_ends_with_the_same_bits(small, tmp_path):
    base = dataclasses.replace(
        small, steps=2000, eval_every=100, checkpoint_every=5, log_every=7, dropout_rate=0.1, knobs={"hidden": (256, 256)}
    )
    straight, killed = (dataclasses.replace(base, run_dir=str(tmp_path / name)) for name in ("straight", "killed"))
    start(straight).communicate(timeout=120)
    draws = random.Random(0)
    moments = [(draws.randint(1, 4), draws.choice(["half", "flushed", "replaced"])) for _ in range(14)]
    moments += [(draws.uniform(2, 5), "time") for _ in range(6)]
    draws.shuffle(moments)
    for when, stage in moments:
        if stage == "time":
            process = start(killed)
            time.sleep(when)
            process.kill()
            process.communicate()
        else:
            arguments = [*flag_lines(killed), f"--run_dir={killed.run_dir}", "--checkpoint_every=5", "--log_every=7"]
            command = [sys.executable, KILL, str(when), stage, *arguments]
            ended = subprocess.run(command, env={**os.environ, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True)
            assert ended.returncode in (-9, 0), ended.stderr
    out, err = start(killed).communicate(timeout=120)
    assert "test accuracy" in out, err
    assert_same_bits(straight.run_dir, killed.run_dir)
    assert load(killed.run_dir).result["restarts"] >= 14
    assert not [path for path in Path(killed.run_dir).rglob("*") if "percept-part" in path.name]
