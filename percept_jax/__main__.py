"""python -m percept_jax: hands over to the command line."""

from percept_jax.cli.start import start

start()
