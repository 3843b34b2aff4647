"""A sweep from its file to its table: what is not finished is run, all of it is compared."""

from collections.abc import Callable, Iterator
from typing import Any

from percept_jax.analysis import output
from percept_jax.analysis.load import load
from percept_jax.console import say
from percept_jax.errors import PerceptError
from percept_jax.files import locked
from percept_jax.sweeps import crew
from percept_jax.sweeps.board import Board
from percept_jax.sweeps.plan import Planned, Setup
from percept_jax.sweeps.request import SweepRequest
from percept_jax.sweeps.sweep import Sweep
from percept_jax.sweeps.workers import Worker, is_worker
from percept_jax.training.identity import flag_text


def run(request: SweepRequest, interrupted: Callable[[], int | None]) -> dict[str, Any]:
    """Runs a sweep, or what is left of it; prints and writes its table.

    Raises:
        UsageError: something is wrong with a trial, and nothing has been written.
        Interrupted: `interrupted` said so. All is saved, and the same command goes on.
        PerceptError: trials have failed; the others are in the table.
        StorageError: a file cannot be written or is damaged.
    """
    sweep = Sweep(request)
    if request.options["dry_run"]:
        from percept_jax.sweeps import describe

        return describe.dry_run(sweep)
    worker, fresh = is_worker(), sweep.fresh
    sweep.write()
    # Held by all that work on it, so that --fresh of another process does not come between.
    with locked(sweep.folder / ".locks" / "work", wait=True, shared=True):
        if sweep.options.workers > 1 and not worker:
            crew.run(sweep, interrupted, fresh)
        else:
            _work(sweep, interrupted, fresh)
        return {} if worker else _finish(sweep)


def _work(sweep: Sweep, interrupted: Callable[[], int | None], fresh: bool) -> None:
    board = Board(sweep.folder, sweep.measure, quiet=is_worker())
    board.start()
    try:
        for trials in _stages(sweep):
            board.add(trials)
            Worker(sweep.folder, sweep.options, board, interrupted, fresh).work(sweep.programs(trials))
            board.refresh(now=True)
    finally:
        board.close()


def _stages(sweep: Sweep) -> Iterator[list[Planned]]:
    """The trials that tune, where there are some; then, with what they chose, those of the table."""
    if tuning := sweep.tuning():
        yield [trial for trials in tuning.values() for trial in trials]
        # Now it knows the settings.
        sweep.write()
    yield [t for trials in sweep.arms().values() for t in trials.values() if t]


def _finish(sweep: Sweep) -> dict[str, Any]:
    sweep.write()
    lost = [setup for setup in sweep.setups if sweep.lost(setup)]
    for setup in sweep.setups if sweep.spec.candidates else ():
        if tuned := sweep.tuned(setup):
            say(f"{setup.name}: tuned to {_chosen(setup, tuned)}")
    with locked(sweep.folder / ".locks" / "tables", wait=True, folder=sweep.folder) as lock:
        found = output.show(load([sweep.folder]), lock)
    trials = {t.id: t for arm in sweep.arms().values() for t in arm.values() if t}
    failed = [error["error"] for trial, error in sweep.failures().items() if trial in trials and not sweep.result(trials[trial])]
    damaged = [fault for trial in trials.values() if (fault := sweep.damaged(trial))]
    if damaged:
        again = "delete it, and the same command writes it again"
        raise PerceptError(f"{len(damaged)} of {len(trials)} trials are damaged ({damaged[0]}); {again}")
    if failed:
        raise PerceptError(f"{len(failed)} of {len(trials)} trials failed ({failed[0]}); the same command tries them again")
    if lost:
        raise PerceptError(f"{lost[0].name}: no trial of its tuning was finished well")
    left = sum(not t or not sweep.result(t) for arm in sweep.arms().values() for t in arm.values())
    if left:
        say(f"{left} trials are left to other shards, or wait for what they tune; the same command goes on")
    else:
        sweep.forget_packs()
    return found


def _chosen(setup: Setup, tuned: Setup) -> str:
    after = tuned.experiment.science()
    tried = [candidate.science() for candidate in setup.candidates]
    told = []
    for name, value in after.items():
        values = [science[name] for science in tried if name in science]
        if len({repr(v) for v in values}) > 1:
            number = isinstance(value, (int, float)) and len(set(values)) > 2
            edge = ", at the edge of what was tried" if number and value in (min(values), max(values)) else ""
            told.append(f"--{name}={flag_text(value)}{edge}")
    return ", ".join(told)
