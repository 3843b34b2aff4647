"""--dry_run of a sweep: what would run, and for how long. Prints, returns the same for programs, and writes nothing."""

import math
from typing import Any

import jax

from percept_jax.sweeps import plan, widths
from percept_jax.sweeps.sweep import Sweep
from percept_jax.training import loop
from percept_jax.training.run_dir import flag_text


def dry_run(sweep: Sweep) -> dict[str, Any]:
    """Arms, trials, programs, what is done already, and an estimate of time from some steps of each program."""
    base = sweep.setups[0].experiment.science()
    seeds = sweep.spec.seeds
    print(f"{len(sweep.setups)} arms x {len(seeds)} seeds, compared by {sweep.metric}, in {sweep.folder}")
    for setup in sweep.setups:
        science = setup.experiment.science()
        told = [f"--{name}={flag_text(value)}" for name, value in science.items() if value != base.get(name)]
        tuned = f"; tuned over {len(setup.candidates)} settings" if setup.candidates else ""
        print(f"  {setup.name:<32} {' '.join(told)}{tuned}")
    known = {t.id: t for trials in sweep.arms().values() for t in trials.values() if t}
    known |= {t.id: t for trials in sweep.tuning().values() for t in trials}
    waiting = sum(len(setup.candidates) > 0 for setup in sweep.setups) * len(seeds)
    done = [trial for trial in known.values() if sweep.result(trial)]
    programs, total = [], 0.0
    for program in sweep.programs(list(known.values())):
        left = [trial for trial in program.trials if not sweep.result(trial)]
        width, seconds = _estimate(sweep, program, len(left)) if left else (0, 0.0)
        total += seconds
        programs.append({"trials": len(program.trials), "left": len(left), "width": width, "seconds": round(seconds, 1)})
        print(f"  program {len(programs)}: {len(left)} of {len(program.trials)} trials left, {width} at a time, {seconds:.0f} s")
    print(f"{len(known)} trials, {len(done)} done already, {len(programs)} programs; about {total:.0f} s of training are left")
    if waiting:
        print(f"then {waiting} trials at most with the settings that tuning chooses")
    return {"arms": len(sweep.setups), "trials": len(known), "done": len(done), "programs": programs, "seconds": round(total, 1)}


def _estimate(sweep: Sweep, program: plan.Program, left: int) -> tuple[int, float]:
    """Trials at a time, and seconds, of what is left of a program; compilation and evaluation not counted."""
    from percept_jax.sweeps.board import Board
    from percept_jax.sweeps.workers import Worker

    experiment = program.trials[0].experiment
    worker = Worker(sweep.folder, sweep.options, Board(sweep.folder, {}, sweep.metric))
    with jax.enable_x64(experiment.dtype == "float64"):
        dataset = worker.dataset(experiment)
        devices = loop.choose_devices(experiment, dataset.info, split=sweep.options.pack == "off")
        share = max(sweep.options.workers, sweep.options.shards)
        if sweep.options.pack == "auto":
            width, measured, _ = widths.choose(experiment, dataset, devices, left, share)
        else:
            width, measured = 1 if sweep.options.pack == "off" else int(sweep.options.pack) * len(devices), {}
        milliseconds = measured.get(width) or widths.measure(experiment, dataset, devices, width)
    return width, math.ceil(left / width) * width * milliseconds * sweep.steps(experiment) / 1000
