"""Test accuracy of the digits experiments over seeds 0 to 4: mean, standard deviation, and seconds a run.

    ./launch.sh bench digits

Each run is its own process, started as a user would; a run that is already finished is taken as it is.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
SEEDS = range(5)


def main() -> None:
    """Prints one row an experiment."""
    print("| experiment | parameters | validation accuracy | test accuracy | test loss | steps | seconds a run |")
    print("|---|---|---|---|---|---|---|")
    for name in ("digits_linear", "digits_mlp", "digits_lenet"):
        runs, seconds = [], []
        for seed in SEEDS:
            command = [sys.executable, "-m", "percept_jax", f"{ROOT}/experiments/{name}.flags", f"--seed={seed}", "--json"]
            began = time.monotonic()
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds.append(time.monotonic() - began)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
        cells = [name, f"{runs[0]['parameters']:,}"]
        for split, metric in (("validation", "accuracy"), ("test", "accuracy"), ("test", "loss")):
            values = [run[split][metric] for run in runs]
            cells.append(f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}")
        cells += [str(runs[0]["steps"]), f"{statistics.median(seconds):.1f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
