"""Shows a comparison: prints its table, and writes its tables, its pictures and report.html into a folder."""

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from percept_jax import deletion, files, records
from percept_jax.analysis import report, statistics, tables
from percept_jax.analysis.load import Loaded
from percept_jax.console import is_terminal, say
from percept_jax.errors import UsageError
from percept_jax.files import Lock

FILES = ("table.md", "table.tex", "table.csv", "report.html")

# Matches the names of these files and of the pictures.
_WRITTEN = re.compile(r"table\.(md|tex|csv)|report\.html|curves\.png|metric_[a-z0-9_]+\.png")

_MARK = "comparison.json"


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[Lock]:
    """Locks a folder for `show` to write to, creates it if necessary, and marks it as a comparison's folder.

    Raises UsageError if the folder is a sweep's, or has files that `show` would replace but did not write.
    """
    if os.path.lexists(folder / records.PLAN_FILE):
        raise UsageError(f"{folder} is a sweep's folder, which holds the sweep's own tables; choose another", "to")
    if records.read_mark(folder / _MARK, dict, records.COMPARISON) is None:
        found = [path.name for path in deletion.listed(folder) if _WRITTEN.fullmatch(path.name)]
        if found:
            raise UsageError(
                f"{folder / found[0]} was not written by compare, so it is not replaced; choose another folder", "to"
            )
        records.write(folder / _MARK, {"format": records.COMPARISON})
    with files.locked(folder / ".lock", wait=True, folder=folder) as lock:
        yield lock


def show(loaded: Loaded, lock: Lock) -> dict[str, Any]:
    """Prints a comparison, and writes its tables, its pictures and report.html. Returns it as JSON.

    Args:
        loaded: the arms, as `load` reads them.
        lock: the lock on the folder to write to, from `claim` or from a sweep.

    Raises:
        StorageError: a file cannot be written.
    """
    comparison, folder = statistics.compare(*loaded), lock.folder
    deletion.delete_temporaries(lock, folder, _WRITTEN)
    say(tables.plain(comparison, shutil.get_terminal_size((130, 40)).columns if is_terminal(sys.stdout) else 130))
    paths = [*tables.write(comparison, folder), *report.write(comparison, loaded.arms, folder)]
    say("\n".join(str(path) for path in paths if path.suffix != ".png"))
    fields = {name: field for name, field in comparison._asdict().items() if name != "measure"}
    rows = [row._asdict() for row in comparison.rows]
    return {"sweep_dir": str(folder), **json.loads(json.dumps({**fields, "rows": rows}))}
