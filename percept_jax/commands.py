"""What the command line can be asked to do. Each command prints for a person, and returns the same for programs."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from percept_jax import api, models
from percept_jax.data.images import read
from percept_jax.data.sources import SOURCES
from percept_jax.errors import UsageError
from percept_jax.experiment import Experiment
from percept_jax.machine import idle_accelerator, use_compilation_cache
from percept_jax.training.run_dir import ROOT, read_json


def train(experiment: Experiment, name: str, interrupted: Callable[[], int | None], began: float) -> dict[str, Any]:
    """Trains, resumes, or tells what came of an experiment."""
    experiment.validate()
    use_compilation_cache()
    if warning := idle_accelerator():
        print(warning)
    path = api.run(experiment, name=name, interrupted=interrupted, began=began)
    result = read_json(path / "result.json")
    test, validation = result["test"], result["validation"]
    right = round(test["accuracy"] * test["examples"])
    print(f"test accuracy {test['accuracy']:.4f} ({right} of {test['examples']}), loss {test['loss']:.4f}")
    print(f"at step {result['best_step']}, the best on validation (accuracy {validation['accuracy']:.4f})")
    print(path)
    return {"run_dir": str(path), **result}


def evaluate(words: Sequence[str], experiment: Experiment, options: Mapping[str, Any]) -> dict[str, Any]:
    """evaluate RUN_DIR: the best weights on the validation and the test split."""
    if len(words) != 1:
        raise UsageError("usage: evaluate RUN_DIR")
    use_compilation_cache()
    trained = api.load(words[0])
    found = trained.evaluate(experiment.data_dir)
    print(f"weights of step {trained.best_step}")
    for split, numbers in found.items():
        print(f"{split:<10}" + "".join(f"  {name} {value:.4g}" for name, value in numbers.items()))
    return {"run_dir": words[0], "best_step": trained.best_step, **found}


def predict(words: Sequence[str], experiment: Experiment, options: Mapping[str, Any]) -> dict[str, Any]:
    """predict RUN_DIR IMAGE...: classes and probabilities of PNG or JPEG images."""
    if len(words) < 2:
        raise UsageError("usage: predict RUN_DIR IMAGE...")
    if options["top_k"] < 1:
        raise UsageError(f"{options['top_k']} is outside [1, inf)", "top_k")
    use_compilation_cache()
    trained = api.load(words[0])
    images = [read(Path(word), trained.input.image_shape[-1]) for word in words[1:]]
    found = []
    for word, row in zip(words[1:], trained.predict(images).probabilities, strict=True):
        best = row.argsort()[::-1][: options["top_k"]]
        guesses = [{"class": trained.input.classes[c], "probability": float(row[c])} for c in best]
        print(word + "".join(f"  {g['class']} {g['probability']:.4f}" for g in guesses))
        found.append({"image": word, **guesses[0], "top_k": guesses})
    return {"run_dir": words[0], "predictions": found}


def list_all(words: Sequence[str], experiment: Experiment, options: Mapping[str, Any]) -> dict[str, Any]:
    """list: the models with their knobs, the data sets, the experiments."""
    if words:
        raise UsageError("usage: list")
    print("models")
    for name in models.MODELS:
        print(f"  {name:<10} {models.summary(name)}")
        if own := models.knobs(name):
            print(" " * 13 + "  ".join(f"--{k.name}" for k in own))
    print("data sets")
    for name, info in SOURCES.items():
        splits = ", ".join(f"{split} {n:,}" for split, n in info.splits.items())
        print(f"  {name:<10} {'x'.join(map(str, info.image_shape))}, {len(info.classes)} classes; {splits}")
    print("experiments")
    files = [os.path.relpath(path) for path in sorted(ROOT.glob("experiments/*.flags"))]
    for path in files:
        print(f"  {path:<36} {Path(path).read_text().splitlines()[0].lstrip('# ')}")
    return {
        "models": {name: [k.name for k in models.knobs(name)] for name in models.MODELS},
        "datasets": {name: info._asdict() for name, info in SOURCES.items()},
        "experiments": files,
    }


COMMANDS = {"list": list_all, "evaluate": evaluate, "predict": predict}
FLAGS = {"list": (), "evaluate": ("data_dir",), "predict": ("top_k",)}  # that each of them listens to
