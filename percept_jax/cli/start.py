"""The first lines of a process: streams and signals, then JAX, then everything else."""

import sys
import time
from typing import NoReturn

# Before the imports, which are most of the start.
BEGAN = time.time()

from percept_jax.cli import environment, signals
from percept_jax.console import say
from percept_jax.errors import UsageError


def start() -> NoReturn:
    """Runs this process's command line, and ends the process with its exit code."""
    signals.open_standard_streams()
    signals.listen()
    try:
        environment.check()
    except UsageError as error:
        say(str(error), error=True)
        sys.exit(error.exit_code)
    from percept_jax.cli.main import main

    sys.exit(main(sys.argv[1:], BEGAN))
