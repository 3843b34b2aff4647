"""Weights to start from: those of a run, or of a file. Where they are named, their checksum is too: "PATH#1a2b3c4d"."""

import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from percept_jax import weights
from percept_jax.errors import StorageError, UsageError
from percept_jax.training import checkpoint


def located(init_from: str) -> str:
    """--init_from with an absolute path and the checksum of the weights that are there now, unless it has one.

    So that the same words mean the same weights. Raises UsageError where there are none.
    """
    path, crc = _parts(init_from)
    return f"{path}#{crc or _crc(_read(path))}"


def start(init_from: str, template: Any, num_classes: int) -> tuple[Any, list[str]]:
    """Variables as `weights.fit` returns them, and the paths of a new head's leaves.

    Raises UsageError where the weights are not those that were meant, or do not fit.
    """
    path, crc = _parts(init_from)
    found = _read(path)
    if crc and _crc(found) != crc:
        raise UsageError(f"{path} has other weights than those that were meant (their checksum is not {crc})", "init_from")
    return weights.fit(found, template, str(path), num_classes)


def _parts(init_from: str) -> tuple[Path, str]:
    path, crc = re.fullmatch(r"(.*?)(?:#([0-9a-f]{8}))?", init_from, re.DOTALL).groups()
    return Path(path).expanduser().resolve(), crc or ""


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_dir():
        return weights.read(path)
    try:
        newest = checkpoint.newest(path / "checkpoints")
    except StorageError as error:
        raise UsageError(str(error), "init_from") from error
    if newest is None:
        raise UsageError(f"{path}: no run with a checkpoint", "init_from")
    return {name.removeprefix("best/"): array for name, array in newest[0][0].items() if name.startswith("best/")}


def _crc(arrays: Mapping[str, np.ndarray]) -> str:
    crc = 0
    for name in sorted(arrays):
        crc = zlib.crc32(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8), zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"
