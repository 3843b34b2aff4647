"""Test accuracy on the digits data set with 200 training images, fine-tuned from MNIST and from scratch, seeds 0 to 9.

./launch.sh bench finetune
"""

import statistics

from _accuracy import Runs

SEEDS = range(10)


def main() -> None:
    """Trains on MNIST unless that run is finished, then prints the accuracies by seed."""
    runs = Runs()
    try:
        start = runs.start("mnist_crops", ["--run_dir="]).result()["run_dir"]
        arms = {"fine-tuned": ("finetune_digits", start), "from scratch": ("digits_200", "")}
        found = {
            arm: [runs.start(name, [f"--init_from={weights}", f"--seed={seed}"]) for seed in SEEDS]
            for arm, (name, weights) in arms.items()
        }
        columns = {arm: [future.result()["test"]["accuracy"] for future in futures] for arm, futures in found.items()}
    finally:
        runs.stop()
    columns["difference"] = [a - b for a, b in zip(columns["fine-tuned"], columns["from scratch"], strict=True)]
    print(f"| seed | {' | '.join(map(str, SEEDS))} | mean ± sd |")
    print("|---" * (len(SEEDS) + 2) + "|")
    for arm, values in columns.items():
        cells = [f"{value:.4f}" for value in values]
        print(f"| {arm} | {' | '.join(cells)} | {statistics.mean(values):.4f} ± {statistics.stdev(values):.4f} |")


if __name__ == "__main__":
    main()
