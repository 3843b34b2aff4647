"""Shared code of the accuracy benchmarks: prints a table of experiments over seeds.

Each run is its own process, started as a user would start it. One run per core is active at a time, because two runs on one core
each take less time than two runs one after the other on both cores. A run that is already finished is not repeated.
"""

import json
import os
import queue
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from percept_jax import metrics, records

ROOT = Path(__file__).parent.parent


class Runs:
    """Runs experiments in parallel, one per core."""

    def __init__(self) -> None:
        self._cores: queue.Queue = queue.Queue()
        for core in sorted(os.sched_getaffinity(0)):
            self._cores.put(core)
        self._pool = ThreadPoolExecutor(self._cores.qsize())

    def start(self, name: str, flags: Sequence[str]) -> Future[dict[str, Any]]:
        """Starts experiments/<name>.flags with these flags. The future gives its result, or SystemExit with its message."""
        return self._pool.submit(self._run, name, flags)

    def stop(self) -> None:
        """Cancels the runs that have not started."""
        self._pool.shutdown(cancel_futures=True)

    def _run(self, name: str, flags: Sequence[str]) -> dict[str, Any]:
        core = self._cores.get()
        try:
            command = [sys.executable, "-P", "-m", "percept_jax", f"{ROOT}/experiments/{name}.flags", *flags, "--json"]
            done = subprocess.run(["taskset", "-c", str(core), *command], capture_output=True, text=True)
        finally:
            self._cores.put(core)
        if done.returncode:
            raise SystemExit(done.stderr.strip())
        return json.loads(done.stdout.splitlines()[-1])


def table(names: Mapping[str, int], flags: Sequence[str] = ()) -> None:
    """Prints mean and standard deviation for each experiment; `names` maps experiments to their numbers of seeds, from 0 on.

    Seconds are the median time of a run on one core, without the start of its process.
    """
    print("| experiment | n | parameters | metric | validation | test | test loss | steps | seconds on a core |")
    print("|---|---|---|---|---|---|---|---|---|")
    runs = Runs()
    rows = [(name, [runs.start(name, [f"--seed={seed}", *flags]) for seed in range(seeds)]) for name, seeds in names.items()]
    try:
        for name, futures in rows:
            print(_row(name, [future.result() for future in futures]), flush=True)
    finally:
        runs.stop()


def _row(name: str, runs: Sequence[dict[str, Any]]) -> str:
    mark = records.read(Path(runs[0]["run_dir"]) / "provenance.json", records.Provenance)
    metric = metrics.headline(metrics.read(mark), runs[0]["test"]).name
    cells = [name, f"{len(runs)}", f"{runs[0]['parameters']:,}", metric.replace("_", " ")]
    for split, number in (("validation", metric), ("test", metric), ("test", "loss")):
        values = [run[split][number] for run in runs]
        cells.append(f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}" if len(runs) > 1 else f"{values[0]:.4f}")
    seconds = statistics.median(sum(run["seconds"].values()) for run in runs)
    cells += [f"{round(statistics.median(run['steps'] for run in runs)):,}", f"{seconds:.0f}"]
    return "| " + " | ".join(cells) + " |"
