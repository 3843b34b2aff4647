"""COMMANDS: the commands of ./launch.sh, by name. To add one, write its file and add a line here."""

from percept_jax.cli.commands.base import Command, Option
from percept_jax.cli.commands.compare import COMPARE
from percept_jax.cli.commands.evaluate import EVALUATE
from percept_jax.cli.commands.export import EXPORT
from percept_jax.cli.commands.list import LIST
from percept_jax.cli.commands.plot import PLOT
from percept_jax.cli.commands.predict import PREDICT
from percept_jax.cli.commands.prepare import PREPARE
from percept_jax.cli.commands.sweep import SWEEP
from percept_jax.cli.commands.train import TRAIN

COMMANDS: dict[str, Command] = {
    command.name: command for command in (TRAIN, SWEEP, COMPARE, LIST, PREPARE, EVALUATE, PREDICT, EXPORT, PLOT)
}

# The options of all commands, by name; every command has --help and --json.
OPTIONS: dict[str, Option] = {
    option.name: option
    for option in (
        Option("help", False, "show what each flag does, with its default"),
        Option("json", False, "print the result as one JSON object, as the last line of standard output"),
        *(option for command in COMMANDS.values() for option in command.options),
    )
}
