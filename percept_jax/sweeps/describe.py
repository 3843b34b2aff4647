"""--dry_run of a sweep: its arms, trials and programs, and an estimate of the time they take."""

from typing import Any

import jax
import numpy as np

from percept_jax.console import say
from percept_jax.data import feed
from percept_jax.experiment import Experiment
from percept_jax.sweeps import pack_width, plan
from percept_jax.sweeps.sweep import Sweep
from percept_jax.training import loop
from percept_jax.training.identity import flag_text

# The most examples, all zeros, that the estimate uses in place of a data set.
EXAMPLES = 1024


def dry_run(sweep: Sweep) -> dict[str, Any]:
    """Prints arms, trials, programs, what is finished, and an estimate of the remaining time. Returns the same as JSON.

    The estimate is measured by running some steps of each program. No file is written.
    """
    base, seeds = sweep.arms[0].experiment.science(), sweep.spec.seeds
    say(f"{len(sweep.arms)} arms x {len(seeds)} seeds, compared by {sweep.metric}, in {sweep.dir.folder}")
    for arm in sweep.arms:
        changed = [f"--{name}={flag_text(value)}" for name, value in arm.experiment.science().items() if value != base.get(name)]
        tuned = f"; tuned over {len(arm.candidates)} settings" if arm.candidates else ""
        say(f"  {arm.name:<32} {' '.join(changed)}{tuned}")
    for line in dict.fromkeys(f"  {arm.name}: {line}" for arm in sweep.arms for line in arm.experiment.idle()):
        say(line)
    known = {trial.id: trial for trial in (*sweep.tuning_trials(), *sweep.known_trials())}
    done = sum(sweep.dir.result(trial) is not None for trial in known)
    waiting = sum(trial is None for arm in sweep.table_trials().values() for trial in arm.values())
    programs, total = [], 0.0
    for program in sweep.programs(list(known.values())):
        left = [trial.id for trial in program.trials if not sweep.dir.result(trial.id)]
        width, seconds = _estimate(sweep, program.trials[0].experiment, left) if left else (0, 0.0)
        total += seconds
        programs.append({"trials": len(program.trials), "left": len(left), "width": width, "seconds": round(seconds, 1)})
        at_once = f", {width} stepped together, {seconds:.0f} s" if left else ""
        say(f"  program {len(programs)}: {len(left)} of {len(program.trials)} trials left{at_once}")
    say(f"{len(known)} trials, {done} done already, {len(programs)} programs")
    say(f"about {total:.0f} s of training steps are left for one worker, without compilation, validation and files")
    if waiting:
        say(f"then up to {waiting} trials with the settings that tuning chooses")
    return {"arms": len(sweep.arms), "trials": len(known), "done": done, "programs": programs, "seconds": round(total, 1)}


def _estimate(sweep: Sweep, experiment: Experiment, left: list[str]) -> tuple[int, float]:
    """Returns the width of packs and the seconds of training steps for the trials `left` of a program.

    They are measured on zeros, so no data set is read.
    """
    preflight, options = sweep.preflight(experiment), sweep.options
    with jax.enable_x64(experiment.dtype == "float64"):
        size, shape = preflight.stored_size, preflight.shape
        shape = (*size, shape[-1]) if preflight.spec.kind == "images" else shape
        whole = feed.abstract_data(preflight.spec, shape, experiment.real_dtype)
        small = whole._replace(features={name: _first(column) for name, column in whole.features.items()})
        subject = pack_width.Subject(experiment, preflight.spec, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), small))
        devices = loop.choose_devices(experiment, preflight.spec, split=options.pack == "off")
        width, measured = 1, {}
        if options.pack == "auto":
            width, measured, _ = pack_width.choose(subject, devices, len(left), max(options.workers, options.shards))
        elif options.pack != "off":
            width = len(devices) * int(options.pack)
        packs = plan.packs(left, width, len(devices))
        width = packs[0].width
        milliseconds = measured.get(width) or pack_width.measure(subject, devices, width)
    return width, len(packs) * width * milliseconds * subject.steps / 1000


def _first(array: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((min(EXAMPLES, array.shape[0]), *array.shape[1:]), array.dtype)
