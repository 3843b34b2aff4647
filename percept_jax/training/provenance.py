"""The provenance of a run: its command line, the state of the repository, the versions of packages, XLA's flags."""

import functools
import os
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parent.parent
ROOT = _PACKAGE.parent if (_PACKAGE.parent / "launch.sh").exists() else Path.cwd()

_VERSIONS = ("jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets", "array-record", "safetensors", "pillow")


@functools.cache
def provenance() -> dict[str, Any]:
    """Returns the command line, git state, package versions and XLA flags of this process."""
    versions: dict[str, str | None] = {"python": sys.version.split()[0]}
    for package in _VERSIONS:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "command": shlex.join(sys.orig_argv),
        "git_sha": _git("rev-parse", "HEAD").strip() or None,
        "git_diff": _git("diff", "--no-ext-diff", "HEAD"),
        "untracked": _git("ls-files", "--others", "--exclude-standard").splitlines(),
        "versions": versions,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _git(*args: str) -> str:
    try:
        return subprocess.run(["git", "-C", ROOT, *args], capture_output=True, check=True).stdout.decode(errors="replace")
    except (OSError, subprocess.CalledProcessError):
        return ""
