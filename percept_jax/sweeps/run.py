"""A sweep from its file to its table: what is not finished is run, all of it is compared."""

import contextlib
import json
import os
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
from percept_jax.records import COMPARISON
from percept_jax.sweeps import compare, crew, statistics, tables
from percept_jax.sweeps.board import Board
from percept_jax.sweeps.plan import Planned, Setup
from percept_jax.sweeps.request import SweepRequest
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
        sweep.write()  # now it knows the settings
    yield [t for trials in sweep.arms().values() for t in trials.values() if t]


def _finish(sweep: Sweep) -> dict[str, Any]:
    sweep.write()
    lost = [setup for setup in sweep.setups if sweep.lost(setup)]
    for setup in sweep.setups if sweep.spec.candidates else ():
        if tuned := sweep.tuned(setup):
            say(f"{setup.name}: tuned to {_chosen(setup, tuned)}")
    found = show(compare.load([sweep.folder]), sweep.folder, own=True)
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


@contextlib.contextmanager
def _claimed(folder: Path, own: bool) -> Iterator[None]:
    """Holds a folder that tables are written to: a sweep's own, or one that is marked for them.

    Raises UsageError where there are such files of somebody else.
    """
    if not own and os.path.lexists(folder / "plan.json"):
        raise UsageError(f"{folder} is a sweep's folder, whose tables are its own; choose another", "to")
    mark = folder / "comparison.json"
    if not own and records.read_mark(mark, dict, COMPARISON) is None:
        there = [path.name for path in deletion.listed(folder) if _TABLES.fullmatch(path.name)]
        if there:
            raise UsageError(
                f"{folder / there[0]} was written by something else, and is not replaced; choose another folder", "to"
            )
        records.write(mark, {"format": COMPARISON})
    place = folder / ".locks" / "tables" if own else folder / ".lock"
    with locked(place, wait=True, folder=folder) as lock:
        deletion.delete_temporaries(lock, folder, _TABLES)
        yield


def show(loaded: compare.Sweep, folder: Path, own: bool = False) -> dict[str, Any]:
    """Prints a comparison, and writes its tables, its pictures and report.html into a folder; the same for programs.

    The folder is a sweep's `own`, or one for tables. Raises UsageError where such files are there that are not ours.
    """
    found = statistics.compare(*loaded)
    with _claimed(folder, own):
        say(tables.plain(found, shutil.get_terminal_size((130, 40)).columns if is_terminal(sys.stdout) else 130))
        written = tables.write(found, folder)
        from percept_jax.sweeps import report  # imports for a second

        written += report.write(found, loaded.arms, folder)
    say("\n".join(str(path) for path in written if path.suffix != ".png"))
    table = {name: value for name, value in found._asdict().items() if name != "measure"}
    rows = [row._asdict() for row in found.rows]
    return {"sweep_dir": str(folder), **json.loads(json.dumps({**table, "rows": rows}))}
