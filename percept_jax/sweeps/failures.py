"""failures.json of a sweep: what went wrong with which trial."""

from pathlib import Path

from percept_jax import records
from percept_jax.errors import StorageError
from percept_jax.records import Failure


def read_failures(folder: Path) -> dict[str, Failure]:
    """failures.json of a sweep, by trial; what is damaged tells nothing. Raises StorageError where it cannot be read."""
    path = folder / "failures.json"
    if not path.exists():
        return {}
    try:
        return records.checked(records.read(path, dict), dict[str, Failure], path)
    except StorageError:
        return {}
