"""Checks the environment variables of a command before JAX, which is imported here first, fails on them."""

import os
import re

from percept_jax.errors import UsageError, first_line

MOST_CPU_DEVICES = 1024


def check() -> None:
    """Imports JAX. Raises UsageError, naming the variable, if JAX or this package cannot use its value."""
    count = os.environ.get("JAX_NUM_CPU_DEVICES")
    if count is not None and not (re.fullmatch(r"[0-9]{1,6}", count) and 1 <= int(count) <= MOST_CPU_DEVICES):
        raise UsageError(f"not a number of devices from 1 to {MOST_CPU_DEVICES}", where=_assignment("JAX_NUM_CPU_DEVICES"))
    for name in ("TFDS_DATA_DIR", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        value = os.environ.get(name, "")
        if len(value.splitlines()) > 1 or (value and os.path.lexists(value) and not os.path.isdir(value)):
            raise UsageError("not a folder", where=_assignment(name))
    worker = os.environ.get("PERCEPT_WORKER")
    if worker is not None and not re.fullmatch(r"[0-9]{1,4}", worker):
        raise UsageError("only sweeps set this variable, for their workers; unset it", where=_assignment("PERCEPT_WORKER"))
    try:
        import jax  # noqa: F401 (reads JAX_* as it is imported)
    except (ValueError, TypeError) as error:
        names = [name for name in sorted(os.environ) if name.startswith("JAX_")]
        blamed = [name for name in names if name in str(error) or name.lower() in str(error)]
        raise UsageError(first_line(error), where=_assignment(blamed[0]) if blamed else ", ".join(names)) from error


def backend_fault(error: Exception) -> UsageError | None:
    """Returns a UsageError if `error` says that JAX finds no device, for example for an unknown platform; else None."""
    if not re.search(r"Unable to initialize backend|Unknown backend|[Bb]ackend .* is not in the list", str(error)):
        return None
    platforms = os.environ.get("JAX_PLATFORMS", "")
    return UsageError(f"JAX finds no device: {first_line(error)}", where=f"JAX_PLATFORMS={platforms}" if platforms else None)


def _assignment(name: str) -> str:
    return f"{name}={os.environ[name]!r}"
