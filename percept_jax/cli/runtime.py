"""Sets JAX up for the machine: the compilation cache, and a warning if an accelerator is not used."""

import hashlib
import os
import platform
from pathlib import Path

import jax

from percept_jax.console import say
from percept_jax.paths import cache_folder


def prepare_jax(quiet: bool = False) -> None:
    """Sets up the compilation cache; unless `quiet`, prints a warning if an accelerator is not used."""
    use_compilation_cache()
    if not quiet and (warning := idle_accelerator()):
        say(warning)


def use_compilation_cache() -> None:
    """Makes JAX cache every compiled program on disk, in $JAX_COMPILATION_CACHE_DIR or else under ~/.cache.

    There is one folder per type of processor and number of usable cores: code compiled for one CPU may not run on another
    that shares the home directory, and XLA splits an operation into as many parts as it has cores when it compiles.
    """
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / _processor()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def idle_accelerator() -> str | None:
    """Returns a warning if the machine has a GPU or TPU that JAX does not use, with the command that helps; else None."""
    if jax.default_backend() != "cpu" or os.environ.get("JAX_PLATFORMS") == "cpu":
        return None
    for kind, extra, sign in (("a GPU", "cuda", "/proc/driver/nvidia/version"), ("a TPU", "tpu", "/dev/accel0")):
        if Path(sign).exists():
            return f"this machine has {kind}, but JAX runs on the CPU; type: PERCEPT_EXTRAS={extra} ./launch.sh setup"
    return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        known = [line for line in lines if line.startswith(("model name", "flags", "Features"))][:2]
    except OSError:
        known = []
    # macOS and Windows do not know which cores a process may use.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return hashlib.sha256(repr((platform.machine(), platform.processor(), known, cores)).encode()).hexdigest()[:8]
