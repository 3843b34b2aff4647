"""A sweep from its file to its table: what is not finished is run, all of it is compared."""

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from percept_jax import deletion, records
from percept_jax.console import is_terminal, say
from percept_jax.errors import PerceptError, UsageError
from percept_jax.files import locked
from percept_jax.records import COMPARISON, SWEEP, Plan
from percept_jax.request import SweepRequest
from percept_jax.sweeps import compare, crew, statistics, tables
from percept_jax.sweeps.board import Board
from percept_jax.sweeps.plan import Planned, Setup
from percept_jax.sweeps.sweep import Sweep
from percept_jax.sweeps.workers import Worker, is_worker
from percept_jax.training.identity import flag_text

_TABLES = re.compile(r"table\.(md|tex|csv)|report\.html|curves\.png|metric_[a-z0-9_]+\.png")  # under the lock "tables"


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
    if sweep.options.workers > 1 and not worker:
        crew.run(sweep, interrupted, fresh)
    else:
        board = Board(sweep.folder, sweep.metric, quiet=worker)
        board.start()
        try:
            for trials in _stages(sweep):
                board.add(trials)
                Worker(sweep.folder, sweep.options, board, interrupted, fresh).work(sweep.programs(trials))
                board.refresh(now=True)
        finally:
            board.close()
    return {} if worker else _finish(sweep)


def _stages(sweep: Sweep) -> Iterator[list[Planned]]:
    """The trials that tune, where there are some; then, with what they chose, those of the table."""
    if tuning := sweep.tuning():
        yield [trial for trials in tuning.values() for trial in trials]
        sweep.write()  # now it knows the settings
    yield [t for trials in sweep.arms().values() for t in trials.values() if t]


def _finish(sweep: Sweep) -> dict[str, Any]:
    sweep.write()
    lost = [setup for setup in sweep.setups if sweep.lost(setup)]
    for setup in sweep.setups if sweep.spec.candidates else ():
        if tuned := sweep.tuned(setup):
            say(f"{setup.name}: tuned to {_chosen(setup, tuned)}")
    with locked(sweep.folder / ".locks" / "tables", wait=True, folder=sweep.folder) as lock:
        deletion.delete_temporaries(lock, sweep.folder, _TABLES)
        found = show(compare.load([sweep.folder]), sweep.folder)
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


def _claim(folder: Path) -> None:
    """Marks a folder as one that tables are written to. Raises UsageError where there are such files of somebody else."""
    if records.read_mark(folder / "plan.json", Plan, SWEEP):
        return
    mark = folder / "comparison.json"
    if records.read_mark(mark, dict, COMPARISON) is None:
        there = [path.name for path in deletion.listed(folder) if _TABLES.fullmatch(path.name)]
        if there:
            raise UsageError(
                f"{folder / there[0]} was written by something else, and is not replaced; choose another folder", "to"
            )
        records.write(mark, {"format": COMPARISON})


def show(loaded: compare.Sweep, folder: Path) -> dict[str, Any]:
    """Prints a comparison, and writes its tables, its pictures and report.html into a folder; the same for programs."""
    found = statistics.compare(*loaded)
    _claim(folder)
    say(tables.plain(found, shutil.get_terminal_size((130, 40)).columns if is_terminal(sys.stdout) else 130))
    written = tables.write(found, folder)
    from percept_jax.sweeps import report  # imports for a second

    written += report.write(found, loaded.arms, folder)
    say("\n".join(str(path) for path in written if path.suffix != ".png"))
    rows = [row._asdict() for row in found.rows]
    return {"sweep_dir": str(folder), **json.loads(json.dumps({**found._asdict(), "rows": rows}))}
