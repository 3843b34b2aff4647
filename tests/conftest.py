"""Eight CPU devices, one prepared data folder, and a small experiment to vary."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_platforms", "cpu")

from helpers import load

from percept_jax import Experiment

ROOT = Path(__file__).parent.parent


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run what is marked slow too")


def pytest_collection_modifyitems(config, items):
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: give --slow"))
        if "data" in item.keywords and not os.environ.get("PERCEPT_TEST_DATA"):
            item.add_marker(pytest.mark.skip(reason="PERCEPT_TEST_DATA is not set"))


@pytest.fixture(scope="session", autouse=True)
def data_dir(tmp_path_factory):
    """A data folder with the digits in it, which every process of the suite uses."""
    folder = tmp_path_factory.mktemp("data")
    os.environ["TFDS_DATA_DIR"] = str(folder)
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    load("digits", folder, 8)
    return folder


@pytest.fixture(scope="session")
def digits(data_dir):
    return load("digits", data_dir, 8)


@pytest.fixture
def small(tmp_path):
    """An experiment that takes a second: an MLP on the 8x8 digits, one device, 20 steps."""
    base = Experiment(model="mlp", steps=20, batch_size=32, learning_rate=0.05, eval_every=10, devices=1, log_every=5)
    return dataclasses.replace(base, run_dir=str(tmp_path / "run"), knobs={"hidden": (16,)})


@pytest.fixture
def launch():
    """Runs launch.sh in this environment, as a user would: (arguments, **environment) -> the finished process."""

    def run(*args, cwd=ROOT, script=ROOT / "launch.sh", **env):
        command = [str(script), *map(str, args)]
        env = {**os.environ, "PERCEPT_PYTHON": sys.executable, **{k: str(v) for k, v in env.items()}}
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)

    return run
