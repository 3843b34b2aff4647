"""What the command line can be asked to do. Each command prints for a person, and returns the same for programs."""

import hashlib
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from percept_jax import api, metrics, models, records, signals, weights
from percept_jax.console import say
from percept_jax.data.readers import toy
from percept_jax.data.registry import DIGITS, PREPARABLE, is_prepared
from percept_jax.errors import UsageError
from percept_jax.experiment import Experiment
from percept_jax.flagfile import COMMAND_LINE
from percept_jax.guesses import predict
from percept_jax.machine import idle_accelerator, use_compilation_cache
from percept_jax.paths import output_path, user_path
from percept_jax.records import Provenance
from percept_jax.request import Request, SweepRequest
from percept_jax.training.run_dir import ROOT, data_path


def train(experiment: Experiment, name: str, interrupted: Callable[[], int | None], began: float) -> dict[str, Any]:
    """Trains, resumes, or tells what came of an experiment."""
    experiment.validate()
    use_compilation_cache()
    if warning := idle_accelerator():
        say(warning)
    path = api.run(experiment, name=name, interrupted=interrupted, began=began)
    result = records.read_result(path)
    test, validation = result["test"], result["validation"]
    metric = metrics.headline(metrics.read(records.read(path / "provenance.json", Provenance)), test)
    text, value = metric.name.replace("_", " "), test[metric.name]
    shown = f"test {text} {value:.4f}"
    if metric.of:
        count = test.get(metric.of, test["examples"])
        shown += f" ({round(value * count)} of {count})"
    say(f"{shown}, loss {test['loss']:.4f}")
    say(f"at step {result['best_step']}, the best on validation ({text} {validation[metric.name]:.4f})")
    say(str(path))
    return {"run_dir": str(path), **result}


def sweep(request: SweepRequest, interrupted: Callable[[], int | None]) -> dict[str, Any]:
    """Runs, resumes, or tells what came of a sweep."""
    from percept_jax.sweeps.run import run
    from percept_jax.sweeps.workers import is_worker

    if is_worker():
        signals.end_with_parent()
    elif request.options["workers"] > 1:
        jax.config.update("jax_platforms", "cpu")  # the devices are for the workers
    use_compilation_cache()
    if not is_worker() and (warning := idle_accelerator()):
        say(warning)
    return run(request, interrupted)


def compare(request: Request) -> dict[str, Any]:
    """compare SWEEP_OR_RUN_DIR...: arms side by side, paired by seed; tables and report.html."""
    from percept_jax.sweeps import compare
    from percept_jax.sweeps.run import show

    if not request.words or any(word.endswith(".sweep") for word in request.words):
        raise UsageError("usage: compare SWEEP_OR_RUN_DIR... [--baseline=ARM] [--metric=test/accuracy] [--to=DIR]")
    paths, options = [user_path(word, where=COMMAND_LINE) for word in request.words], request.options
    to = output_path(options["to"], "to") if options["to"] else None
    if to and to.exists() and not to.is_dir():
        raise UsageError(f"{to} is not a folder", "to")
    loaded = compare.load(paths, options["metric"], options["baseline"])
    alone = len(paths) == 1 and (paths[0] / "plan.json").exists()
    digest = hashlib.sha256(repr([str(path.resolve()) for path in paths]).encode()).hexdigest()[:8]
    folder = to or (paths[0] if alone else ROOT / "runs" / f"compare-{digest}")
    return show(loaded, folder, own=alone and not to)


def evaluate(request: Request) -> dict[str, Any]:
    """evaluate RUN_DIR: the best weights on the validation and the test split."""
    path = _one(request.words, "evaluate RUN_DIR")
    use_compilation_cache()
    trained = api.load(path)
    found = trained.evaluate(request.experiment.data_dir, request.experiment.dataset if "dataset" in request.origins else "")
    say(f"weights of step {trained.best_step}" if trained.best_step else "initial weights: there was no validation yet")
    for split, numbers in found.items():
        say(f"{split:<10}" + "".join(f"  {name} {value:.4g}" for name, value in numbers.items()))
    return {"run_dir": path, "best_step": trained.best_step, **found}


def _one(words: Sequence[str], usage: str) -> str:
    if len(words) != 1:
        raise UsageError(f"usage: {usage}")
    return words[0]


def list_all(request: Request) -> dict[str, Any]:
    """list: the models with their knobs, the data sets, the experiments."""
    if request.words:
        raise UsageError("usage: list")
    say("models")
    for family in models.families():
        say(textwrap.fill(", ".join(family), 110, initial_indent="  ", subsequent_indent="  "))
        say(f"      {models.summary(family[0])}")
        if own := models.knobs(family[0]):
            say(textwrap.fill("  ".join(f"--{k.name}" for k in own), 110, initial_indent=" " * 6, subsequent_indent=" " * 6))
    say("data sets")
    folder = data_path(request.experiment.data_dir)
    sets = {"digits": DIGITS, **{name: toy.describe(name) for name in toy.TOYS}, **PREPARABLE}
    for name, spec in sets.items():
        splits = ", ".join(f"{split} {n:,}" for split, n in spec.splits.items())
        absent = "" if name == "digits" or is_prepared(name, folder) else f"; ./launch.sh prepare {name}"
        kind = "points" if spec.kind == "points" else "x".join(map(str, spec.shape))
        say(f"  {name:<13} {kind}, {len(spec.classes)} classes; {splits}{absent}")
    say(f"  any TFDS data set of one image and one label in {folder}; folder:PATH; npz:FILE, tagged:FILE, text:FILE")
    say("experiments")
    found = [*ROOT.glob("experiments/*.flags"), *ROOT.glob("experiments/*.sweep")]
    files = [os.path.relpath(path) for path in sorted(found)]
    for path in files:
        say(f"  {path:<41} {Path(path).read_text(errors='replace').partition(chr(10))[0].lstrip('# ')}")
    return {
        "models": {name: [k.name for k in models.knobs(name)] for name in models.MODELS},
        "datasets": {name: {"classes": len(spec.classes), "splits": spec.splits} for name, spec in sets.items()},
        "experiments": files,
    }


def prepare(request: Request) -> dict[str, Any]:
    """prepare NAME: a TFDS folder out of the files as their authors distribute them, downloaded where --from is not given."""
    from percept_jax.data import prepare as rooms

    name = _one(request.words, "prepare NAME [--from=DIR] [--file_format=array_record|tfrecord]")
    options = request.options
    source = user_path(options["from"], "from") if options["from"] else None
    folder = output_path(data_path(request.experiment.data_dir), "data_dir")
    path = rooms.prepare(name, folder, source, options["file_format"])
    say(str(path))
    return {"dataset": name, "folder": str(path)}


def export(request: Request) -> dict[str, Any]:
    """export RUN_DIR --to=FILE.safetensors: the best weights, under their own names, for --init_from or another program."""
    path = _one(request.words, "export RUN_DIR --to=FILE.safetensors")
    to = request.options["to"]
    if not to.endswith(".safetensors"):
        raise UsageError("give a file: --to=FILE.safetensors", "to")
    trained = api.load(path)
    weights.save(output_path(to, "to"), trained.variables)
    say(f"{to}: weights of step {trained.best_step or 0}, {sum(map(np.size, jax.tree.leaves(trained.variables))):,} numbers")
    return {"run_dir": path, "to": to, "best_step": trained.best_step}


def plot(request: Request) -> dict[str, Any]:
    """plot RUN_DIR [--boundary], or plot --augmentations FILE.flags: pictures."""
    from percept_jax import pictures

    use_compilation_cache()
    if request.options["augmentations"]:
        if request.words:
            raise UsageError("usage: plot --augmentations FILE.flags")
        paths = [pictures.augmentations(request.experiment, request.name)]
    else:
        trained = api.load(_one(request.words, "plot RUN_DIR [--boundary], or plot --augmentations FILE.flags"))
        paths = pictures.of_run(trained, request.experiment.data_dir, request.options["boundary"])
    for path in paths:
        say(str(path))
    return {"pictures": [str(path) for path in paths]}


COMMANDS = {
    "compare": compare,
    "list": list_all,
    "prepare": prepare,
    "evaluate": evaluate,
    "predict": predict,
    "export": export,
    "plot": plot,
}

# Flags that a command listens to, beside --json.
_FLAGS = {
    "compare": {"metric", "baseline", "to"},
    "list": {"data_dir"},
    "prepare": {"data_dir", "from", "file_format"},
    "evaluate": {"data_dir", "dataset"},
    "predict": {"top_k", "temperature", "length", "seed"},
    "export": {"to"},
    "plot": {"boundary", "data_dir"},
}


def listens(command: str, flag: str, options: Mapping[str, Any]) -> bool:
    """Whether a flag means something to a command; "" is training, which takes every flag of an experiment."""
    if command == "plot" and options["augmentations"]:
        return flag == "augmentations" or flag not in options
    if command:
        return flag in _FLAGS[command] or flag == "json"
    return flag not in options or flag in ("json", "dry_run", "help")
