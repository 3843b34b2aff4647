"""The cost of a sweep: packs of trials against one process per trial, and the automatically chosen width against others.

    ./launch.sh bench sweeps

Whole commands are timed, from the start to the table, with a warm compilation cache. In each round every variant runs once,
ratios are taken within a round, and medians over the rounds are shown: 3 rounds for the perceptron, 2 for LeNet-5.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-P", "-m", "percept_jax"]
MLP = [
    *(f"{ROOT}/experiments/digits_mlp.flags", "--steps=300"),
    *("--sweep", "--learning_rate={0.01,0.02,0.05,0.1}", "--momentum={0,0.5,0.9,0.95}", "--seeds=4"),
]
LENET = [
    *(f"{ROOT}/experiments/mnist_lenet5.flags", "--steps=100", "--eval_every=100"),
    *("--sweep", "--learning_rate={0.02,0.05}", "--seeds=4"),
]


def seconds(arguments: Sequence[str]) -> float:
    """Returns the wall time of one command in a new run directory."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        subprocess.run([*COMMAND, *arguments, f"--run_dir={folder}/run"], check=True, capture_output=True)
        return time.monotonic() - began


def rounds(variants: Mapping[str, Sequence[str]], count: int) -> list[dict[str, float]]:
    """Returns the seconds of each variant, round by round, after one round that fills the cache."""
    for arguments in variants.values():
        seconds(arguments)
    return [{name: seconds(arguments) for name, arguments in variants.items()} for _ in range(count)]


def show(title: str, found: Sequence[Mapping[str, float]], against: Sequence[float], ratio: str) -> None:
    """Prints medians over the rounds, and the median ratio to what each round is compared against."""
    print(f"\n{title}\n\n| variant | seconds | {ratio} |\n|---|---|---|")
    for name in found[0]:
        ratios = [other / row[name] for row, other in zip(found, against, strict=True)]
        print(f"| {name} | {statistics.median(row[name] for row in found):.1f} | {statistics.median(ratios):.2f} |", flush=True)


def main() -> None:
    """Prints both tables."""
    packs = {f"--pack={pack}": [*MLP, f"--pack={pack}"] for pack in ("auto", "64", "32", "16", "8")}
    alone = {f"alone, seed {seed}": [*MLP[:2], f"--seed={seed}"] for seed in range(3)}
    found = rounds(packs | alone, 3)
    solo = [64 * statistics.mean(row[name] for name in alone) for row in found]
    show("digits_mlp, 16 arms x 4 seeds, 300 steps", found, solo, "time of 64 separate runs, relative to this")
    packs = {f"--pack={pack}": [*LENET, f"--pack={pack}"] for pack in ("auto", "off", "2", "4", "8")}
    found = rounds(packs, 2)
    best = [min(row[name] for name in packs if name != "--pack=auto") for row in found]
    show("mnist_lenet5, 2 arms x 4 seeds, 100 steps", found, best, "time of the best other width, relative to this")


if __name__ == "__main__":
    main()
