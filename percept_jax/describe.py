"""--help and --dry_run: what could run, and what would. Both print, return the same for programs, and write nothing."""

import sys
import textwrap
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from percept_jax import models
from percept_jax.console import is_terminal, say
from percept_jax.data.feed import Data
from percept_jax.data.spec import DatasetSpec
from percept_jax.experiment import DEFAULTS, KNOBS, TYPES, Experiment, stack_hparams
from percept_jax.training import loop, parallel, preflight
from percept_jax.training.identity import flag_text
from percept_jax.training.program import make_program
from percept_jax.training.run_dir import data_path, run_path


def show_help(model: str | None, options: Mapping[str, tuple[Any, str]]) -> dict[str, Any]:
    """Every flag by group, with its default and range; the knobs of one model, or of all."""
    shown: dict[str, Any] = {}

    def show(name: str, hint: Any, default: Any, text: str, within: str = "") -> None:
        kind = " | ".join(get_args(hint)) if get_origin(hint) is Literal else within
        say(f"  --{name}={flag_text(default)}   {kind}".rstrip())
        say(textwrap.fill(text, 100, initial_indent="      ", subsequent_indent="      "))
        shown[name] = default

    say("Flags with their defaults. Usage: ./launch.sh alone prints it.")
    for group in dict.fromkeys(knob.group for knob in KNOBS.values()):
        say(f"\n{group}")
        for name, knob in KNOBS.items():
            if knob.group == group:
                show(name, TYPES[name], DEFAULTS[name], knob.help, knob.within)
    say()
    for family in [[model]] if model else models.families():
        if own := models.knobs(family[0]):
            say(textwrap.fill(f"model {', '.join(family)}" + ", with the defaults of the first" * (len(family) > 1), 100))
            for knob in own:
                show(knob.name, knob.type, knob.default, knob.help)
            say()
    say("command")
    for name, (default, text) in options.items():
        show(name, type(default), default, text)
    return {"flags": shown}


def dry_run(experiment: Experiment, name: str, origins: Mapping[str, str]) -> dict[str, Any]:
    """Every flag with its origin; layers, parameters, FLOPs; the memory of a compiled step; steps and programs."""
    experiment.validate()
    folder = data_path(experiment.data_dir)
    experiment = preflight.located(experiment, folder)
    spec = preflight.describe_data(experiment, folder, absent_too=True)
    devices = loop.choose_devices(experiment, spec)
    size = preflight.image_size(experiment, spec)
    shape = preflight.model_shape(experiment, spec, size)
    table = _flags(experiment, origins)
    preflight.check_weights(experiment, spec, shape)
    stored = preflight.stored_size(experiment, size)
    with jax.enable_x64(experiment.dtype == "float64"):
        found = _program(experiment, spec, shape, (stored, stored, shape[-1]) if spec.kind == "images" else shape, len(devices))
    examples = len(spec.index["train"])
    steps, batch = experiment.total_steps(examples), experiment.batch(examples)
    path = str(run_path(experiment, name or preflight.default_name(experiment)))
    say(f"parameters     {found['parameters']:,}")
    say(f"steps          {steps:,} of {batch:,} examples: {steps * batch / examples:.2f} epochs of {examples:,}")
    say(f"programs       1, on {len(devices)} x {devices[0].device_kind}")
    say(f"memory         {found['memory_bytes'] / 2**20:,.1f} MiB a device, with the data set in it")
    if found["flops_per_step"]:
        say(f"work           {found['flops_per_step'] / 1e6:,.1f} MFLOP a step and device, as XLA counts them")
    say(f"run directory  {path}")
    for line in preflight.notes_of(experiment, examples, steps):
        say(line)
    return {"flags": table, **found, "steps": steps, "programs": 1, "devices": len(devices), "run_dir": path}


def _flags(experiment: Experiment, origins: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    values = {name: getattr(experiment, name) for name in KNOBS} | experiment.science()
    table = {name: {"value": value, "origin": origins.get(name, "default")} for name, value in values.items()}
    for flag, row in table.items():
        say(f"--{flag + '=' + flag_text(row['value']):<44} {row['origin']}")
    return table


def _program(
    experiment: Experiment, spec: DatasetSpec, shape: tuple[int, ...], stored: tuple[int, ...], devices: int
) -> dict[str, Any]:
    """The layer table, and what XLA says of the training step for one device's share of the batch."""
    program = make_program(experiment, spec)
    example = jnp.zeros((1, *shape), jnp.int32 if spec.words else jnp.float32)
    console = {"width": 130, "force_terminal": is_terminal(sys.stdout)}
    say(nn.tabulate(program.module, jax.random.key(0), compute_flops=True, console_kwargs=console)(example))
    hparams = stack_hparams([experiment], 1)
    here = jax.local_devices()[:1]
    state = jax.eval_shape(parallel.compile_init(program, 1, shape), hparams)
    index = jax.ShapeDtypeStruct((1, experiment.batch(len(spec.index["train"])) // devices), jnp.int32)
    data = abstract_data(spec, stored, hparams.learning_rate.dtype)
    step = parallel.compile_train(program, here, 1).lower(state, index, hparams, data).compile()
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "memory_bytes": parallel.memory_bytes(step),
        "flops_per_step": None if models.takes_sequences(program.module) else step.cost_analysis()["flops"],  # a scan counts once
    }


def abstract_data(spec: DatasetSpec, shape: tuple[int, ...], real: np.dtype) -> Data:
    """Returns the shapes and dtypes of a data set on a device, whose inputs have this shape."""
    count, array = sum(spec.splits.values()), jax.ShapeDtypeStruct
    shapes = {name: tuple(feature.shape) for name, feature in spec.features.items()} | {spec.input: shape}
    numbers = array((0,) if spec.words else shape[-1:], real)
    targets = array(shapes["target"][-1:] if "target" in shapes else (0,), real)
    return Data(
        features={name: array((count, *of), spec.features[name].dtype) for name, of in shapes.items()},
        mean=numbers,
        inv_std=numbers,
        components=array(2 * shape[-1:] if spec.kind == "images" else (0,), real),
        target_mean=targets,
        target_inv_std=targets,
    )
