"""scikit-learn's nearest neighbors and logistic regression on MNIST, split as the experiments split it.

./launch.sh bench baselines

The number of neighbors (1, 3 or 5) and the strength of the penalty are chosen on the validation split. Both methods are
deterministic, so there is no spread to report.
"""

import sys
import time

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from percept_jax.data import registry
from percept_jax.errors import PerceptError
from percept_jax.training.run_dir import data_path

CANDIDATES = {
    "nearest neighbors": [({"n_neighbors": k}, KNeighborsClassifier(k, n_jobs=-1)) for k in (1, 3, 5)],
    "logistic regression": [({"C": c}, LogisticRegression(C=c, max_iter=1000)) for c in (1e-2, 1e-1, 1.0)],
}


def main() -> None:
    """Prints one row per method."""
    info = registry.describe("mnist", data_path("")).select("train[:90%]", "train[90%:]", "test")
    dataset = registry.load("mnist", data_path(""), info, (28, 28))
    pixels = dataset.inputs.reshape(len(dataset.inputs), -1).astype(np.float32) / 255
    parts = {role: (pixels[index], dataset.examples["label"][index]) for role, index in info.roles.items()}
    print("| scikit-learn | chosen | validation accuracy | test accuracy | seconds |")
    print("|---|---|---|---|---|")
    for name, candidates in CANDIDATES.items():
        began, best = time.monotonic(), None
        for setting, model in candidates:
            accuracy = model.fit(*parts["train"]).score(*parts["validation"])
            if best is None or accuracy > best[0]:
                best = accuracy, setting, model
        accuracy, setting, model = best
        test = model.score(*parts["test"])
        print(f"| {name} | {setting} | {accuracy:.4f} | {test:.4f} | {time.monotonic() - began:.0f} |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except PerceptError as error:
        sys.exit(str(error))
