"""The start of a process: sets up streams and signals, imports JAX, then imports and runs everything else."""

import sys
import time
from typing import NoReturn

# Taken before the imports, which take most of the start-up time.
BEGAN = time.time()

from percept_jax.cli import environment, signals
from percept_jax.console import say
from percept_jax.errors import UsageError


def start() -> NoReturn:
    """Runs the command line of this process, and ends the process with the exit code."""
    signals.open_standard_streams()
    signals.listen()
    try:
        environment.check()
    except UsageError as error:
        say(str(error), error=True)
        sys.exit(error.exit_code)
    from percept_jax.cli.main import main

    sys.exit(main(sys.argv[1:], BEGAN))
