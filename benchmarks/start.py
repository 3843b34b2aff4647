"""The time from the first line of a process to the first training step, with cached programs and prepared data.

    ./launch.sh bench start

The figures are medians over 7 whole processes; the imports are cumulative.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
RUNS = 7
IMPORTS = {
    "Python alone": "pass",
    "+ numpy": "import numpy",
    "+ jax": "import numpy, jax",
    "+ flax, optax": "import numpy, jax, flax.linen, optax",
    "+ all that a run imports": "import percept_jax.cli.main, percept_jax.api, tensorboardX",
}


def seconds(command: list[str]) -> float:
    """Returns the wall time of one process."""
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - began


def main() -> None:
    """Prints the times of the imports, then the total times of the digits experiments."""
    print("| part | seconds |\n|---|---|")
    for name, code in IMPORTS.items():
        print(f"| {name} | {statistics.median(seconds([sys.executable, '-c', code]) for _ in range(RUNS)):.2f} |", flush=True)
    print("\n| experiment | first line to first step | of it compiled or read from the cache | whole process, 1 step |")
    print("|---|---|---|---|")
    for name in ("digits_linear", "digits_mlp", "digits_lenet"):
        first, compiled, whole = [], [], []
        with tempfile.TemporaryDirectory() as folder:
            # The first run fills the cache, and is not counted.
            for _ in range(RUNS + 1):
                run = [ROOT / "launch.sh", ROOT / f"experiments/{name}.flags", "--steps=1", f"--run_dir={folder}/run", "--fresh"]
                env = {**os.environ, "PERCEPT_PYTHON": sys.executable}
                began = time.monotonic()
                subprocess.run(run, check=True, capture_output=True, env=env)
                whole.append(time.monotonic() - began)
                took = json.loads(Path(folder, "run", "result.json").read_text())["seconds"]
                first.append(took["start"] + took["compile"])
                compiled.append(took["compile"])
        print(f"| {name} | " + " | ".join(f"{statistics.median(x[1:]):.2f}" for x in (first, compiled, whole)) + " |", flush=True)


if __name__ == "__main__":
    main()
