"""What a command reads from its environment: looked at before JAX, which is imported here first, trips over it."""

import os
import re

from percept_jax.errors import UsageError, first_line

MOST_CPU_DEVICES = 1024


def check() -> None:
    """Imports JAX. Raises UsageError, naming the variable, where it or this package cannot read one of its settings."""
    count = os.environ.get("JAX_NUM_CPU_DEVICES")
    if count is not None and not (re.fullmatch(r"[0-9]{1,6}", count) and 1 <= int(count) <= MOST_CPU_DEVICES):
        raise UsageError(f"not a number of devices from 1 to {MOST_CPU_DEVICES}", where=_said("JAX_NUM_CPU_DEVICES"))
    for name in ("TFDS_DATA_DIR", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        value = os.environ.get(name, "")
        if len(value.splitlines()) > 1 or (value and os.path.lexists(value) and not os.path.isdir(value)):
            raise UsageError("not a folder", where=_said(name))
    worker = os.environ.get("PERCEPT_WORKER")
    if worker is not None and not re.fullmatch(r"[0-9]{1,4}", worker):
        raise UsageError("a sweep sets it for its workers, to a number; unset it", where=_said("PERCEPT_WORKER"))
    try:
        import jax  # noqa: F401 (reads JAX_* as it is imported)
    except (ValueError, TypeError) as error:
        names = [name for name in sorted(os.environ) if name.startswith("JAX_")]
        blamed = [name for name in names if name in str(error) or name.lower() in str(error)]
        raise UsageError(first_line(error), where=_said(blamed[0]) if blamed else ", ".join(names)) from error


def backend_fault(error: Exception) -> UsageError | None:
    """What to say where JAX finds no device, as it does for a platform that there is not; None where that is not the fault."""
    if not re.search(r"Unable to initialize backend|Unknown backend|[Bb]ackend .* is not in the list", str(error)):
        return None
    said = os.environ.get("JAX_PLATFORMS", "")
    return UsageError(f"JAX finds no device: {first_line(error)}", where=f"JAX_PLATFORMS={said}" if said else None)


def _said(name: str) -> str:
    return f"{name}={os.environ[name]!r}"
