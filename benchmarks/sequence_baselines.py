"""Simple baselines for sequences: each word's most common tag (ATIS), and forecasts by regression (ItalyPowerDemand).

./launch.sh bench sequence_baselines
"""

import json
from collections import Counter, defaultdict

import numpy as np
from sklearn.linear_model import Ridge

from percept_jax.data import registry
from percept_jax.data.readers.base import ReaderConfig
from percept_jax.training.run_dir import data_path


def tags() -> float:
    """Returns the test accuracy of tagging each word with its most common training tag; new words get the most common tag."""
    content = json.loads(registry.path_of("tagged:atis_upos.json", data_path("")).read_text())
    seen: defaultdict[str, Counter] = defaultdict(Counter)
    for word, tag in (pair for sentence in content["train"] for pair in sentence):
        seen[word][tag] += 1
    any_word = sum(seen.values(), Counter()).most_common(1)[0][0]
    pairs = [pair for sentence in content["test"] for pair in sentence]
    return float(np.mean([(seen[word].most_common(1)[0][0] if word in seen else any_word) == tag for word, tag in pairs]))


def forecasts() -> dict[str, float]:
    """Returns the test RMSE of each method that forecasts the last 8 hours of a day from the 16 before them."""
    reader = registry.open_reader("npz:ItalyPowerDemand.npz", data_path(""), ReaderConfig(horizon=8))
    train, test = (reader.source(split).read(range(reader.describe().splits[split])) for split in ("train", "test"))
    x, y = (np.concatenate([train[name], test[name]])[..., 0] for name in ("series", "target"))
    train = len(train["series"])
    forecast = {"the mean day": np.broadcast_to(y[:train].mean(0), y[train:].shape), "the last hour read": x[train:, -1:]}
    for strength in (1e-9, 1.0):
        forecast[f"ridge regression, penalty {strength:g}"] = Ridge(strength).fit(x[:train], y[:train]).predict(x[train:])
    return {name: float(np.sqrt(np.mean((values - y[train:]) ** 2))) for name, values in forecast.items()}


if __name__ == "__main__":
    print("| baseline | test |\n|---|---|")
    print(f"| ATIS, each word's most common tag: accuracy | {tags():.4f} |")
    for method, rmse in forecasts().items():
        print(f"| ItalyPowerDemand, {method}: RMSE | {rmse:.4f} |")
