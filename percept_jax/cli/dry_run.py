"""--dry_run: prints what an experiment would run, and returns the same as JSON. No file is written."""

import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.linen import summary

from percept_jax import models
from percept_jax.console import is_terminal, say
from percept_jax.data import feed
from percept_jax.data.spec import DatasetSpec
from percept_jax.experiment import KNOBS, Experiment, stack_hparams
from percept_jax.training import loop, parallel, preflight
from percept_jax.training.identity import flag_text
from percept_jax.training.program import make_program
from percept_jax.training.run_dir import data_path, run_path


def dry_run(experiment: Experiment, name: str, origins: Mapping[str, str]) -> dict[str, Any]:
    """Prints and returns every flag with its origin, layers, parameters, FLOPs, memory of the compiled step, steps, programs."""
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
        found = _program(experiment, spec, shape, (*stored, shape[-1]) if spec.kind == "images" else shape, len(devices))
    examples = len(spec.roles["train"])
    steps, batch = experiment.total_steps(examples), experiment.batch(examples)
    path = str(run_path(experiment, name or preflight.default_name(experiment)))
    say(f"parameters     {found['parameters']:,}")
    say(f"steps          {steps:,} of {batch:,} examples: {steps * batch / examples:.2f} epochs of {examples:,}")
    say(f"programs       1, on {len(devices)} x {devices[0].device_kind}")
    say(f"memory         {found['memory_bytes'] / 2**20:,.1f} MiB per device, including the data set")
    if found["flops_per_step"]:
        say(f"work           {found['flops_per_step'] / 1e6:,.1f} MFLOP per step and device, as XLA counts them")
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
    """Prints the table of layers. Returns XLA's analysis of the training step for one device's share of the batch."""
    program = make_program(experiment, spec)
    example = jnp.zeros((1, *shape), jnp.int32 if spec.words else jnp.float32)
    console = {"width": 130, "force_terminal": is_terminal(sys.stdout)}
    say(summary.tabulate(program.module, jax.random.key(0), compute_flops=True, console_kwargs=console)(example))
    hparams = stack_hparams([experiment], 1)
    device = jax.local_devices()[:1]
    state = jax.eval_shape(parallel.compile_init(program, 1, shape), hparams)
    index = jax.ShapeDtypeStruct((1, experiment.batch(len(spec.roles["train"])) // devices), jnp.int32)
    data = feed.abstract_data(spec, stored, hparams.learning_rate.dtype)
    train: Any = parallel.compile_train(program, device, 1)
    step = train.lower(state, index, hparams, data).compile()
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "memory_bytes": parallel.memory_bytes(step),
        # Unknown for recurrent networks: XLA counts the body of a scan only once.
        "flops_per_step": None if models.takes_sequences(program.module) else step.cost_analysis()["flops"],
    }
