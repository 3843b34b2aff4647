"""Eight CPU devices, one prepared data folder, and a small experiment to vary."""

import dataclasses
import os
import subprocess
import sys

import hypothesis
import jax
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")

from helpers import ROOT, load
from helpers.sweeps import BASE

from percept_jax import Experiment
from percept_jax.analysis import report
from percept_jax.cli.runtime import use_compilation_cache
from percept_jax.data.images import encode_png
from percept_jax.plots import figure, run

# A picture of one pixel, in place of those that a test does not look at.
BLANK = encode_png(np.zeros((1, 1, 3), np.uint8))


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run what is marked slow too")


def pytest_configure(config):
    hypothesis.settings.register_profile("slow", max_examples=500)
    if config.getoption("--slow"):
        hypothesis.settings.load_profile("slow")
    else:
        # XLA's fusion emitters take a third of the suite's time to compile; with --slow, programs are those that users run.
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"


def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.path.parent.name == "end_to_end":
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: give --slow"))
        # Not item.keywords: these hold the names of folders too, as of tests/data.
        if item.get_closest_marker("data") and not os.environ.get("PERCEPT_TEST_DATA"):
            item.add_marker(pytest.mark.skip(reason="PERCEPT_TEST_DATA is not set"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Leaves out what takes most of a short run's time: XLA's optimizations, and the drawing of pictures.

    With --slow, tests marked `optimized` compile the programs that users run, also in processes that they start; tests marked
    `pictures` always draw.
    """
    pictures = item.get_closest_marker("pictures") is not None
    optimized = item.get_closest_marker("optimized") is not None and item.config.getoption("--slow")
    jax.config.update("jax_disable_most_optimizations", not optimized)
    # Not everywhere: Flax's batch norm and average pooling and optax's Adam mix dtypes themselves.
    strict = item.get_closest_marker("strict_dtypes") is not None
    jax.config.update("jax_numpy_dtype_promotion", "strict" if strict else "standard")
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(not optimized)
    run.png = report.png = figure.png if pictures else lambda *args: BLANK


@pytest.fixture(scope="session", autouse=True)
def data_dir(tmp_path_factory):
    """A data folder with the digits in it, which every process of the suite uses; they share what they compile, too."""
    folder = tmp_path_factory.mktemp("data")
    os.environ["TFDS_DATA_DIR"] = str(folder)
    # The workers of pytest-xdist have their own folders in one of the session.
    session = tmp_path_factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else tmp_path_factory.getbasetemp()
    os.environ["XDG_CACHE_HOME"] = str(session / "cache")
    use_compilation_cache()
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


@pytest.fixture
def write_sweep(tmp_path):
    """Writes a sweep file, what every sweep here has and the lines given: its path."""

    def write_sweep(*lines, name="my", base=BASE):
        path = tmp_path / f"{name}.sweep"
        path.write_text("\n".join([*base, *lines]) + "\n")
        return path

    return write_sweep
