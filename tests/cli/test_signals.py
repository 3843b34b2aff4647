"""Signals in every phase, and what becomes of a run whose terminal goes away."""

import dataclasses
import gc
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.runs import assert_same_bits, start

from percept_jax import train
from percept_jax.cli.signals import Signals
from percept_jax.errors import Interrupted
from percept_jax.training.identity import flag_lines

RESULT = "result.json"


def command(experiment):
    own = [f"--run_dir={experiment.run_dir}", f"--log_every={experiment.log_every}"]
    return [sys.executable, "-m", "percept_jax", *flag_lines(experiment), *own]


def environment():
    return {**os.environ, "JAX_PLATFORMS": "cpu"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("after", [0.4, 1.2, 2.0, 3.0, 4.0, 5.0, 7.0])
def test_a_signal_at_any_time_ends_the_run_with_its_code_and_loses_nothing(small, tmp_path, number, after):
    experiment = dataclasses.replace(small, steps=100_000, eval_every=20, knobs={"hidden": (256,)})
    process = start(experiment)
    time.sleep(after)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, (out, err)
    assert "Traceback" not in err
    assert not list(Path(small.run_dir).rglob("*.percept-part"))
    with pytest.raises(Interrupted):  # what there is is a run that goes on
        train(dataclasses.replace(experiment, log_every=5), interrupted=lambda: signal.SIGTERM)


def test_a_signal_inside_a_callback_of_the_garbage_collector_is_neither_lost_nor_printed(monkeypatch, capsys):
    """Python cannot pass on what such a callback raises, and would print a traceback of it."""
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)

    def stopped(phase, info):
        # It is called at the end of a collection too; a second signal would end the process.
        if phase == "start":
            os.kill(os.getpid(), signal.SIGTERM)
            while interrupted._came is None:
                time.sleep(0.001)

    def broken(phase, info):
        raise ValueError

    with Signals() as interrupted:
        for callback, prints in ((stopped, False), (broken, True)):
            gc.callbacks.append(callback)
            gc.collect()
            gc.callbacks.remove(callback)
            assert bool(printed) == prints
        # The thread that hears of signals must not meet this one when nobody listens any more: it would end the process.
        while "SIGTERM received" not in capsys.readouterr().err:
            time.sleep(0.01)
        assert interrupted() == signal.SIGTERM
    assert sys.unraisablehook == printed.append


@pytest.mark.optimized
@pytest.mark.slow
def test_a_signal_during_a_long_compilation_is_heard_at_once(small, tmp_path):
    """No handler runs until the compilation is over; what it waits for is said before."""
    experiment = dataclasses.replace(small, model="resnet20", knobs={}, steps=100)
    process = subprocess.Popen(
        command(experiment), env=environment() | {"XDG_CACHE_HOME": str(tmp_path / "cache")}, stderr=subprocess.PIPE, text=True
    )
    while not list(Path(small.run_dir).glob("events*")):  # then the first step is compiled
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    line = process.stderr.readline()
    assert time.monotonic() - sent < 1
    assert line.startswith("SIGTERM received: waiting for")
    assert process.poll() is None
    process.communicate(timeout=240)
    assert process.returncode == 143


@pytest.mark.slow
def test_a_second_signal_ends_at_once(small):
    experiment = dataclasses.replace(small, model="resnet20", knobs={}, steps=100)
    process = subprocess.Popen(command(experiment), env=environment(), stderr=subprocess.PIPE, text=True)
    while not list(Path(small.run_dir).glob("events*")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith("SIGINT received")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130


@pytest.mark.slow
def test_a_run_without_standard_streams_comes_to_its_end(small):
    """Closed ones, whose numbers the next files that are opened would get."""
    line = f"exec {' '.join(command(small))} <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", line], env=environment(), timeout=120).returncode == 0
    assert json.loads(Path(small.run_dir, RESULT).read_text())["status"] == "done"
    assert_same_bits(small.run_dir, train(dataclasses.replace(small, run_dir=small.run_dir + "2")).path)


@pytest.mark.slow
def test_a_run_outlives_its_terminal(small):
    """Its window is closed: SIGHUP comes, and whatever it prints from then on fails."""
    experiment = dataclasses.replace(small, steps=2000, eval_every=20)
    master, slave = pty.openpty()
    process = subprocess.Popen(command(experiment), env=environment(), stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    while b"examples/s" not in os.read(master, 10_000):
        assert process.poll() is None
    os.close(master)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=120) == 0
    assert json.loads(Path(small.run_dir, RESULT).read_text())["status"] == "done"
