"""--init_from: initial weights from a run or a file, named by a path and a checksum: "PATH#1a2b3c4d"."""

import operator
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from percept_jax.console import say_once
from percept_jax.errors import UsageError
from percept_jax.paths import user_path
from percept_jax.training import stored
from percept_jax.weights import file


def absolute(init_from: str) -> str:
    """Returns --init_from with an absolute path, and with its checksum if it has one."""
    path, crc = _parts(init_from)
    return f"{path}#{crc}" if crc else str(path)


def located(init_from: str) -> str:
    """Returns --init_from with an absolute path and a checksum: the one it has, else that of the weights there now.

    The same text then always means the same weights. Raises UsageError if there are none, StorageError if they are damaged.
    """
    path, crc = _parts(init_from)
    return f"{path}#{crc or _crc(_read(path))}"


def start(init_from: str, template: Any, num_classes: int) -> tuple[Any, list[str]]:
    """Returns the variables as `weights.file.fit` returns them, and the paths of a new head's leaves.

    Raises UsageError if the weights do not have the given checksum or do not fit; StorageError if a run's are damaged.
    """
    path, crc = _parts(init_from)
    found = _read(path)
    if crc and _crc(found) != crc:
        raise UsageError(f"{path} holds other weights than expected: their checksum is not {crc}", "init_from")
    return file.fit(found, template, str(path), num_classes)


def start_each(init_from: str, drawn: Any, num_classes: int, trials: int) -> tuple[Any, list[str]]:
    """Returns `start` for each trial, stacked; `drawn` holds their initial variables as NumPy arrays `[trials, ...]`."""
    rows = [start(init_from, jax.tree.map(operator.itemgetter(k), drawn), num_classes) for k in range(trials)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *(row for row, _ in rows)), rows[0][1]


def _parts(init_from: str) -> tuple[Path, str]:
    found = re.search(r"#([0-9a-f]{8})\Z", init_from)
    path = init_from[: found.start()] if found else init_from
    return Path(os.path.abspath(user_path(path, "init_from"))), found[1] if found else ""


def _read(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a file, or the best weights of a run. Raises as `weights.file.read` and `stored.read` do."""
    if not path.is_dir():
        return file.read(path)
    try:
        arrays = stored.read(path, say_once).arrays
    except UsageError as error:
        raise UsageError(error.args[0], "init_from") from error
    return {name.removeprefix("best/"): array for name, array in arrays.items() if name.startswith("best/")}


def _crc(arrays: Mapping[str, np.ndarray]) -> str:
    crc = 0
    for name in sorted(arrays):
        crc = zlib.crc32(np.ascontiguousarray(arrays[name]).tobytes(), zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"
