"""Runs a sweep: trains the trials that are not finished, then writes the table."""

from collections.abc import Callable, Iterator
from typing import Any

from percept_jax.analysis import output
from percept_jax.analysis.load import load
from percept_jax.console import say
from percept_jax.errors import PerceptError
from percept_jax.sweeps import processes
from percept_jax.sweeps.plan import ArmPlan, TrialPlan
from percept_jax.sweeps.progress import SweepProgress
from percept_jax.sweeps.request import SweepRequest
from percept_jax.sweeps.sweep import Sweep
from percept_jax.sweeps.workers import Worker, is_worker
from percept_jax.training.identity import flag_text


def run(request: SweepRequest, interrupted: Callable[[], int | None]) -> dict[str, Any]:
    """Runs or resumes a sweep, prints and writes its table, and returns it.

    Args:
        request: the sweep.
        interrupted: returns the number of the signal that asked to stop, if one has arrived.

    Raises:
        UsageError: a trial cannot run; nothing has been written.
        Interrupted: a signal arrived; the state has been saved, and the same command resumes.
        PerceptError: trials have failed; the others are in the table.
        StorageError: a file cannot be written or is damaged.
    """
    sweep = Sweep(request)
    if request.options["dry_run"]:
        from percept_jax.sweeps import describe

        return describe.dry_run(sweep)
    worker, fresh = is_worker(), sweep.fresh
    sweep.write()
    # While any process holds this lock, another process with --fresh cannot delete trials.
    with sweep.dir.lock_work():
        if sweep.options.workers > 1 and not worker:
            processes.run_workers(sweep, interrupted, fresh)
        else:
            _train(sweep, interrupted, fresh)
        return {} if worker else _finish(sweep)


def _train(sweep: Sweep, interrupted: Callable[[], int | None], fresh: bool) -> None:
    progress = SweepProgress(sweep.dir, sweep.measure, quiet=is_worker())
    progress.start()
    try:
        for trials in _stages(sweep):
            progress.add(trials)
            Worker(sweep.dir, sweep.options, progress, interrupted, fresh).work(sweep.programs(trials))
            progress.refresh(now=True)
    finally:
        progress.close()


def _stages(sweep: Sweep) -> Iterator[list[TrialPlan]]:
    """Yields the tuning trials, if there are any, and then the trials of the table with the settings that tuning chose."""
    if tuning := sweep.tuning_trials():
        yield tuning
        # The trials of the table are known now, so the plan is written again.
        sweep.write()
    yield sweep.known_trials()


def _finish(sweep: Sweep) -> dict[str, Any]:
    """Prints, writes and returns the table. Raises PerceptError if trials have failed or are damaged."""
    sweep.write()
    untuned = [arm for arm in sweep.arms if sweep.tuning_failed(arm)]
    for arm in sweep.arms if sweep.spec.candidates else ():
        if tuned := sweep.tuned(arm):
            say(f"{arm.name}: tuned to {_chosen(arm, tuned)}")
    with sweep.dir.lock_tables() as lock:
        table = output.show(load([sweep.dir.folder]), lock)
    trials = list(dict.fromkeys(trial.id for trial in sweep.known_trials()))
    failed = [
        failure["error"] for trial, failure in sweep.dir.failures().items() if trial in trials and not sweep.dir.result(trial)
    ]
    damaged = [fault for trial in trials if (fault := sweep.dir.fault(trial))]
    if damaged:
        advice = "delete the damaged file, and the same command writes it again"
        raise PerceptError(f"{len(damaged)} of {len(trials)} trials are damaged ({damaged[0]}); {advice}")
    if failed:
        raise PerceptError(f"{len(failed)} of {len(trials)} trials failed ({failed[0]}); the same command tries them again")
    if untuned:
        raise PerceptError(f"{untuned[0].name}: every trial of its tuning failed or diverged")
    left = sum(not t or not sweep.dir.result(t.id) for arm in sweep.table_trials().values() for t in arm.values())
    if left:
        say(f"{left} trials are left: they belong to other shards or wait for tuning; the same command continues")
    else:
        sweep.delete_packs()
    return table


def _chosen(arm: ArmPlan, tuned: ArmPlan) -> str:
    """Returns the flags that tuning chose, with a note if a number is the largest or smallest that was tried."""
    tried = [candidate.science() for candidate in arm.candidates]
    chosen = []
    for name, value in tuned.experiment.science().items():
        values = [science[name] for science in tried if name in science]
        if len({repr(v) for v in values}) > 1:
            number = isinstance(value, (int, float)) and len(set(values)) > 2
            edge = ", the end of the range that was tried" if number and value in (min(values), max(values)) else ""
            chosen.append(f"--{name}={flag_text(value)}{edge}")
    return ", ".join(chosen)
