"""--dry_run of a sweep: what would run, and for how long. Prints, returns the same for programs, and writes nothing."""

from typing import Any

import jax
import numpy as np

from percept_jax.console import say
from percept_jax.data import feed
from percept_jax.experiment import Experiment
from percept_jax.sweeps import plan, widths
from percept_jax.sweeps.sweep import Sweep
from percept_jax.training import loop
from percept_jax.training.identity import flag_text

# Of zeros, at most, take the place of a data set.
EXAMPLES = 1024


def dry_run(sweep: Sweep) -> dict[str, Any]:
    """Arms, trials, programs, what is done already, and an estimate of time from some steps of each program."""
    base, seeds = sweep.setups[0].experiment.science(), sweep.spec.seeds
    say(f"{len(sweep.setups)} arms x {len(seeds)} seeds, compared by {sweep.metric}, in {sweep.folder}")
    for setup in sweep.setups:
        science = setup.experiment.science()
        told = [f"--{name}={flag_text(value)}" for name, value in science.items() if value != base.get(name)]
        tuned = f"; tuned over {len(setup.candidates)} settings" if setup.candidates else ""
        say(f"  {setup.name:<32} {' '.join(told)}{tuned}")
    for line in dict.fromkeys(f"  {setup.name}: {line}" for setup in sweep.setups for line in setup.experiment.idle()):
        say(line)
    tuning = [trial for trials in sweep.tuning().values() for trial in trials]
    known = {trial.id: trial for trial in (*tuning, *(t for arm in sweep.arms().values() for t in arm.values() if t))}
    done = sum(sweep.result(trial) is not None for trial in known.values())
    waiting = sum(trial is None for arm in sweep.arms().values() for trial in arm.values())
    programs, total = [], 0.0
    for program in sweep.programs(list(known.values())):
        left = [trial.id for trial in program.trials if not sweep.result(trial)]
        width, seconds = _estimate(sweep, program.trials[0].experiment, left) if left else (0, 0.0)
        total += seconds
        programs.append({"trials": len(program.trials), "left": len(left), "width": width, "seconds": round(seconds, 1)})
        at_once = f", {width} at a time, {seconds:.0f} s" if left else ""
        say(f"  program {len(programs)}: {len(left)} of {len(program.trials)} trials left{at_once}")
    say(f"{len(known)} trials, {done} done already, {len(programs)} programs")
    say(f"about {total:.0f} s of training steps are left on one worker; compilation, validation and files come on top")
    if waiting:
        say(f"then {waiting} trials at most with the settings that tuning chooses")
    return {"arms": len(sweep.setups), "trials": len(known), "done": done, "programs": programs, "seconds": round(total, 1)}


def _estimate(sweep: Sweep, experiment: Experiment, left: list[str]) -> tuple[int, float]:
    """Trials at a time, and seconds of training steps, for what is left of a program. Measured on zeros: nothing is read."""
    preflight, options = sweep.preflight(experiment), sweep.options
    with jax.enable_x64(experiment.dtype == "float64"):
        size, shape = preflight.stored_size, preflight.shape
        shape = (size, size, shape[-1]) if preflight.spec.kind == "images" else shape
        whole = feed.abstract_data(preflight.spec, shape, experiment.real_dtype)
        few = whole._replace(features={name: _first(column) for name, column in whole.features.items()})
        subject = widths.Subject(experiment, preflight.spec, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), few))
        devices = loop.choose_devices(experiment, preflight.spec, split=options.pack == "off")
        width, measured = 1, {}
        if options.pack == "auto":
            width, measured, _ = widths.choose(subject, devices, len(left), max(options.workers, options.shards))
        elif options.pack != "off":
            width = len(devices) * int(options.pack)
        packs = plan.cut(left, width, len(devices))
        width = packs[0].width
        milliseconds = measured.get(width) or widths.measure(subject, devices, width)
    return width, len(packs) * width * milliseconds * subject.steps / 1000


def _first(array: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((min(EXAMPLES, array.shape[0]), *array.shape[1:]), array.dtype)
