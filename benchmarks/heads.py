"""Checks that every measured experiment that takes under five minutes still gives exactly the recorded numbers.

./launch.sh bench heads

Each experiment runs with seed 0 in a temporary directory, one per core. Every logged number except timings is compared with
benchmarks/results/heads.json, which is written if it does not exist: delete it to record new numbers. They hold for one type of
processor, one number of threads and one version of JAX; elsewhere they differ by rounding, and by more after many steps.

The data directory ($TFDS_DATA_DIR, else data/) must hold mnist (`./launch.sh prepare mnist`) and the files of sequences.
"""

import hashlib
import json
import platform
import re
import sys
import tempfile
from concurrent.futures import Future
from importlib.metadata import version
from pathlib import Path
from typing import Any

from _accuracy import ROOT, Runs

RECORD = ROOT / "benchmarks" / "results" / "heads.json"
SECONDS = re.compile(r"[:,] (\d+) s(?: a run)? on one CPU core")
TIMINGS = {"examples_per_second"}


def measured() -> list[str]:
    """Returns the experiments whose head comment states a time below 300 s, sorted by name."""
    names = []
    for path in sorted((ROOT / "experiments").glob("*.flags")):
        head = " ".join(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#"))
        match = SECONDS.search(head)
        if match and int(match[1]) < 300:
            names.append(path.stem)
    return names


def numbers(run_dir: Path) -> dict[str, Any]:
    """Returns a checksum of all that a run logged, and its result, both without times."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((run_dir / "result.json").read_text())
    logged = json.dumps([{key: value for key, value in line.items() if key not in TIMINGS} for line in lines])
    return {
        "metrics": hashlib.blake2b(logged.encode(), digest_size=16).hexdigest(),
        "result": {key: result[key] for key in ("steps", "parameters", "best_step", "validation", "test")},
    }


def processor() -> str:
    """Returns the name of the processor as Linux reports it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def main() -> int:
    """Prints a line for each experiment. Returns 1 if one has different numbers, else 0."""
    here = {"processor": processor(), "jax": version("jax"), "jaxlib": version("jaxlib")}
    record = json.loads(RECORD.read_text()) if RECORD.exists() else None
    if record and record["where"] != here:
        print(f"the numbers were recorded on {record['where']}, but this is {here}: they may differ by rounding")
    found, wrong, runs = {}, 0, Runs()
    with tempfile.TemporaryDirectory() as folder:

        def start(name: str, *flags: str) -> Future[dict[str, Any]]:
            return runs.start(name, ["--seed=0", "--devices=1", f"--run_dir={folder}/{name}", *flags])

        names = [name for name in measured() if name != "finetune_digits"]
        started = {name: start(name) for name in names}
        try:
            for name in [*names, "finetune_digits"]:
                # finetune_digits starts from the weights of mnist_crops.
                future = started.get(name) or start(name, f"--init_from={folder}/mnist_crops")
                future.result()
                found[name] = numbers(Path(folder, name))
                same = None if record is None else record["experiments"].get(name) == json.loads(json.dumps(found[name]))
                wrong += same is False
                print(
                    name, {None: "recorded", True: "the same", False: "DIFFERS"}[same], found[name]["result"]["test"], flush=True
                )
        finally:
            runs.stop()
    if record is None:
        RECORD.write_text(json.dumps({"where": here, "experiments": found}, indent=1) + "\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
