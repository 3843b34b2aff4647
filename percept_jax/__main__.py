"""python -m percept_jax: runs the command line."""

from percept_jax.cli.start import start

start()
