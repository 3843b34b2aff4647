"""What the benchmarks of accuracy share: a table of experiments over seeds.

Each run is its own process, started as a user would. As many run side by side as there are cores, each on one of them: two
such runs take less time than one on two cores after the other. A run that is already finished is taken as it is.
"""

import json
import os
import queue
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from percept_jax.training.evaluation import headline

ROOT = Path(__file__).parent.parent


def table(names: Mapping[str, int], flags: Sequence[str] = ()) -> None:
    """Prints a row for each experiment of `experiments/`, over so many seeds from 0 on: mean and standard deviation.

    Seconds are the median of what a run took on one core, without its process's start.
    """
    print("| experiment | n | parameters | metric | validation | test | test loss | steps | seconds on a core |")
    print("|---|---|---|---|---|---|---|---|---|")
    cores: queue.Queue = queue.Queue()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)

    def run(name: str, seed: int) -> dict[str, Any]:
        core = cores.get()
        try:
            command = [sys.executable, "-P", "-m", "percept_jax", f"{ROOT}/experiments/{name}.flags", f"--seed={seed}", *flags]
            done = subprocess.run(["taskset", "-c", str(core), *command, "--json"], capture_output=True, text=True)
        finally:
            cores.put(core)
        if done.returncode:
            raise SystemExit(done.stderr.strip())
        return json.loads(done.stdout.splitlines()[-1])

    pool = ThreadPoolExecutor(cores.qsize())
    rows = [(name, [pool.submit(run, name, seed) for seed in range(seeds)]) for name, seeds in names.items()]
    try:
        for name, runs in rows:
            print(_row(name, [run.result() for run in runs]), flush=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _row(name: str, runs: Sequence[dict[str, Any]]) -> str:
    metric = headline(runs[0]["test"])
    cells = [name, f"{len(runs)}", f"{runs[0]['parameters']:,}", metric.replace("_", " ")]
    for split, number in (("validation", metric), ("test", metric), ("test", "loss")):
        values = [run[split][number] for run in runs]
        cells.append(f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}" if len(runs) > 1 else f"{values[0]:.4f}")
    seconds = statistics.median(sum(run["seconds"].values()) for run in runs)
    cells += [f"{round(statistics.median(run['steps'] for run in runs)):,}", f"{seconds:.0f}"]
    return "| " + " | ".join(cells) + " |"
