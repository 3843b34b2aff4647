"""list: the models, data sets and experiments."""

import os
import textwrap
from pathlib import Path
from typing import Any

from percept_jax.cli.commands.base import Command, Request
from percept_jax.errors import UsageError


def run(request: Request) -> dict[str, Any]:
    """Prints the models with their knobs, the data sets and the experiments. Returns their names."""
    if request.words:
        raise UsageError(f"usage: {LIST.usage}")
    from percept_jax import models
    from percept_jax.console import say
    from percept_jax.data.readers import toy
    from percept_jax.data.registry import DIGITS, PREPARABLE, READERS, is_prepared
    from percept_jax.training.run_dir import ROOT, data_path

    say("models")
    for family in models.families():
        say(textwrap.fill(", ".join(family), 110, initial_indent="  ", subsequent_indent="  "))
        say(f"      {models.summary(family[0])}")
        if model_knobs := models.knobs(family[0]):
            say(
                textwrap.fill(
                    "  ".join(f"--{k.name}" for k in model_knobs), 110, initial_indent=" " * 6, subsequent_indent=" " * 6
                )
            )
    say("data sets")
    folder = data_path(request.experiment.data_dir)
    sets = {"digits": DIGITS, **{name: toy.describe(name) for name in toy.TOYS}, **PREPARABLE}
    for name, spec in sets.items():
        splits = ", ".join(f"{split} {n:,}" for split, n in spec.splits.items())
        hint = "" if name == "digits" or is_prepared(name, folder) else f"; ./launch.sh prepare {name}"
        kind = "points" if spec.kind == "points" else "x".join(map(str, spec.shape))
        say(f"  {name:<13} {kind}, {len(spec.classes)} classes; {splits}{hint}")
    prefixes = ", ".join(f"{kind}:{'PATH' if entry.is_folder else 'FILE'}" for kind, entry in READERS.items())
    say(f"  any TFDS data set of one image and one label in {folder}; {prefixes}")
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


LIST = Command("list", "list", "list the models, data sets and experiments", run, flags=("data_dir",))
