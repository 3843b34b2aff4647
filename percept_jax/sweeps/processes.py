"""Starts the worker processes of a sweep on this machine: the same command, once per device or share of the cores."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from percept_jax import files
from percept_jax.errors import Interrupted, PerceptError, StorageError
from percept_jax.sweeps.progress import SweepProgress
from percept_jax.sweeps.sweep import Sweep
from percept_jax.sweeps.workers import POLL, WORKER_VARIABLE


def run_workers(sweep: Sweep, interrupted: Callable[[], int | None], fresh: bool) -> None:
    """Starts the workers of a sweep, and returns when they have ended.

    Args:
        sweep: the sweep, already written to its folder.
        interrupted: returns the number of the signal that asked to stop, if one has arrived.
        fresh: whether the sweep was started with --fresh, for the message of an interruption.

    Raises:
        Interrupted: a signal arrived, and all workers have saved their state.
        StorageError: a worker could not write a file.
        PerceptError: all workers failed.
    """
    progress = SweepProgress(sweep.dir, sweep.measure)
    logs = [sweep.dir.log(i) for i in range(sweep.options.workers)]
    workers = [_start(i, len(logs), log, sweep.request.arguments) for i, log in enumerate(logs)]
    progress.add(sweep.tuning_trials())
    progress.start()
    complete = False
    try:
        while any(worker.poll() is None for worker in workers):
            # All trials of the table are known once tuning has chosen the settings of every arm.
            if not complete:
                trials = [trial for arm in sweep.table_trials().values() for trial in arm.values()]
                complete = all(trials)
                progress.add(trial for trial in trials if trial)
            progress.refresh(now=True)
            if number := interrupted():
                raise Interrupted(number, fresh=fresh)
            time.sleep(POLL)
    finally:
        progress.close()
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        codes = [worker.wait() for worker in workers]
    if StorageError.exit_code in codes:
        raise StorageError(_last_line(logs[codes.index(StorageError.exit_code)], StorageError.exit_code))
    if 0 not in codes:
        raise PerceptError(f"all workers failed; the first one: {_last_line(logs[0], codes[0])}")
    for i, code in enumerate(codes):
        if code:
            progress.note(f"worker {i} ended with status {code}, the others continued; see {logs[i]}")


def _last_line(log: Path, code: int) -> str:
    """Returns the last line that a worker printed."""
    return (log.read_text(errors="replace").strip() or f"it ended with status {code}").splitlines()[-1]


def _start(number: int, workers: int, log: Path, arguments: Sequence[str]) -> subprocess.Popen:
    command = [sys.executable, "-P", "-m", "percept_jax", *arguments]
    environment = {**os.environ, WORKER_VARIABLE: str(number)}
    if gpus := _gpus():
        environment["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    cores = sorted(os.sched_getaffinity(0))
    share = cores[number % len(cores) :: min(workers, len(cores))]
    try:
        # A process inherits the cores of its parent. Workers that share all cores would be slower.
        os.sched_setaffinity(0, share if not gpus else cores)
        with files.open_log(log) as file:
            # The pipe closes when this process ends for whatever reason, and the worker then ends: `signals.end_with_parent`.
            return subprocess.Popen(command, env=environment, stdout=file, stderr=file, stdin=subprocess.PIPE)
    finally:
        os.sched_setaffinity(0, cores)


def _gpus() -> list[str]:
    """Returns the GPUs that workers may use, as CUDA_VISIBLE_DEVICES names them."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name]
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return []
    return [str(i) for i in range(len(list(Path("/proc/driver/nvidia/gpus").glob("*"))))]
