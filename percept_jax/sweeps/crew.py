"""Several workers on this machine: processes of the same command, one a device, or each on its share of the cores."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from percept_jax import files
from percept_jax.errors import Interrupted, PerceptError, StorageError
from percept_jax.sweeps.board import Board
from percept_jax.sweeps.sweep import Sweep
from percept_jax.sweeps.workers import MARK, POLL


def run(sweep: Sweep, interrupted: Callable[[], int | None], fresh: bool) -> None:
    """Starts the workers and waits for them. Raises Interrupted when a signal came, PerceptError where none came to the end."""
    board = Board(sweep.folder, sweep.measure)
    logs = [sweep.folder / ".workers" / f"{i}.log" for i in range(sweep.options.workers)]
    workers = [_start(i, len(logs), log, sweep.request.arguments) for i, log in enumerate(logs)]
    board.add(trial for trials in sweep.tuning().values() for trial in trials)
    board.start()
    complete = False
    try:
        while any(worker.poll() is None for worker in workers):
            # Until tuning has found every setting.
            if not complete:
                trials = [trial for arm in sweep.arms().values() for trial in arm.values()]
                complete = all(trials)
                board.add(trial for trial in trials if trial)
            board.refresh(now=True)
            if number := interrupted():
                raise Interrupted(number, fresh=fresh)
            time.sleep(POLL)
    finally:
        board.close()
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        codes = [worker.wait() for worker in workers]
    if 3 in codes:
        raise StorageError(_last_line(logs[codes.index(3)], 3))
    if 0 not in codes:
        raise PerceptError(f"no worker came to the end; the first one: {_last_line(logs[0], codes[0])}")
    for i, code in enumerate(codes):
        if code:
            board.note(f"worker {i} ended with status {code}, and the others went on: {logs[i]}")


def _last_line(log: Path, code: int) -> str:
    """What a worker said last."""
    return (log.read_text(errors="replace").strip() or f"it ended with status {code}").splitlines()[-1]


def _start(number: int, workers: int, log: Path, arguments: Sequence[str]) -> subprocess.Popen:
    command = [sys.executable, "-P", "-m", "percept_jax", *arguments]
    environment = {**os.environ, MARK: str(number)}
    if gpus := _gpus():
        environment["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    cores = sorted(os.sched_getaffinity(0))
    share = cores[number % len(cores) :: min(workers, len(cores))]
    try:
        # It inherits them: two that share all cores are slower.
        os.sched_setaffinity(0, share if not gpus else cores)
        with files.open_log(log) as file:
            # It ends when this process does, however that ends: see `signals.end_with_parent`.
            return subprocess.Popen(command, env=environment, stdout=file, stderr=file, stdin=subprocess.PIPE)
    finally:
        os.sched_setaffinity(0, cores)


def _gpus() -> list[str]:
    """The graphics processors that workers may use."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name]
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return []
    return [str(i) for i in range(len(list(Path("/proc/driver/nvidia/gpus").glob("*"))))]
