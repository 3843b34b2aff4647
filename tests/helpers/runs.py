"""Starts runs, and compares what they left."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from percept_jax.files import read_json_lines
from percept_jax.training import checkpoint
from percept_jax.training.identity import flag_lines

TIMINGS = {"examples_per_second"}


def read_metrics(path):
    return read_json_lines(Path(path) / "metrics.jsonl")


def logged(path):
    """The lines of metrics.jsonl without timings."""
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in read_metrics(Path(path))]


def last_arrays(path):
    return checkpoint.read(Path(path) / "checkpoints", checkpoint.steps(Path(path) / "checkpoints")[-1])[0]


def assert_same_bits(one, other):
    assert logged(one) == logged(other)
    a, b = last_arrays(one), last_arrays(other)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name
    results = [json.loads((Path(p) / "result.json").read_text()) for p in (one, other)]
    for result in results:
        for timing in ("seconds", "goodput", "restarts", "redone_steps"):
            result.pop(timing)
    assert results[0] == results[1]


def start(experiment, **env):
    """The run of an experiment in a process of its own, one device, as the command line starts it."""
    flags = [*flag_lines(experiment), f"--run_dir={experiment.run_dir}", f"--checkpoint_every={experiment.checkpoint_every}"]
    command = [sys.executable, "-m", "percept_jax", *flags, f"--log_every={experiment.log_every}"]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", **env}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_step(path, step, process):
    """Returns once metrics.jsonl has reached `step`."""
    for _ in range(6000):
        if max((line["step"] for line in read_metrics(Path(path))), default=0) >= step:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError("no progress in a minute")
