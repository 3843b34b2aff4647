"""Settings that are read from the environment: what cannot be read is one line, and exit code 2."""

import os
import subprocess
import sys

import jax
import pytest

from percept_jax.cli.runtime import use_compilation_cache

ARGUMENTS = ["--model=linear", "--steps=2", "--devices=1"]


@pytest.mark.parametrize(("name", "value"), [
    ("JAX_NUM_CPU_DEVICES", "abc"), ("JAX_NUM_CPU_DEVICES", "-1"), ("JAX_NUM_CPU_DEVICES", "0"),
    ("JAX_NUM_CPU_DEVICES", "1000000000"), ("JAX_NUM_CPU_DEVICES", "٣"), ("JAX_ENABLE_X64", "banana"),
    ("JAX_PLATFORMS", "nonsense"),
    ("PERCEPT_WORKER", "first"), ("TFDS_DATA_DIR", "/etc/passwd"), ("XDG_CACHE_HOME", "/etc/passwd"),
])  # fmt: skip
def test_a_setting_that_cannot_be_read_is_one_line(tmp_path, name, value):
    command = [sys.executable, "-P", "-m", "percept_jax", *ARGUMENTS, f"--run_dir={tmp_path / 'run'}"]
    done = subprocess.run(command, env={**os.environ, name: value}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"{name}=")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("words", [["list"], ["evaluate", "RUN"], [*ARGUMENTS, "--dry_run"], [*ARGUMENTS, "--sweep", "--seed=0"]])
def test_a_platform_that_there_is_not_is_one_line_for_every_command(tmp_path, words):
    command = [sys.executable, "-P", "-m", "percept_jax", *words]
    done = subprocess.run(command, env={**os.environ, "JAX_PLATFORMS": "nonsense"}, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 2)
    assert done.stderr.count("\n") == (done.returncode == 2)


def test_programs_for_another_number_of_cores_are_kept_apart(monkeypatch):
    """A program that was compiled where one core is usable has no parallel parts; elsewhere, it must not be taken."""
    folders, before = [], jax.config.jax_compilation_cache_dir
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    try:
        for cores in ({0}, {0, 1}, {2, 3}):
            monkeypatch.setattr(os, "sched_getaffinity", lambda pid, cores=cores: cores, raising=False)
            use_compilation_cache()
            folders.append(jax.config.jax_compilation_cache_dir)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert folders[0] != folders[1] == folders[2]
