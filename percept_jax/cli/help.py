"""--help: every flag with its default and range, the flags of the models, and the commands."""

import textwrap
from typing import Any, Literal, get_args, get_origin

from percept_jax import models
from percept_jax.cli.commands import COMMANDS, OPTIONS
from percept_jax.console import say
from percept_jax.experiment import DEFAULTS, KNOBS, TYPES
from percept_jax.training.identity import flag_text


def show_help(model: str | None) -> dict[str, Any]:
    """Prints all flags by group with defaults and ranges, including those of one model, or of all. Returns the defaults."""
    shown: dict[str, Any] = {}

    def show(name: str, hint: Any, default: Any, text: str, within: str = "") -> None:
        kind = " | ".join(get_args(hint)) if get_origin(hint) is Literal else within
        say(f"  --{name}={flag_text(default)}   {kind}".rstrip())
        say(textwrap.fill(text, 100, initial_indent="      ", subsequent_indent="      "))
        shown[name] = default

    say("Flags with their defaults. For the usage, type ./launch.sh without arguments.")
    for group in dict.fromkeys(knob.group for knob in KNOBS.values()):
        say(f"\n{group}")
        for name, knob in KNOBS.items():
            if knob.group == group:
                show(name, TYPES[name], DEFAULTS[name], knob.help, knob.within)
    say()
    for family in [[model]] if model else models.families():
        if model_knobs := models.knobs(family[0]):
            say(textwrap.fill(f"model {', '.join(family)}" + ", with the defaults of the first" * (len(family) > 1), 100))
            for knob in model_knobs:
                show(knob.name, knob.type, knob.default, knob.help)
            say()
    say("commands")
    for command in COMMANDS.values():
        say(f"  {command.usage}")
        say(textwrap.fill(command.help, 100, initial_indent="      ", subsequent_indent="      "))
        for option in command.options:
            if option.name not in shown:
                show(option.name, type(option.default), option.default, option.help)
    say("every command")
    for option in OPTIONS.values():
        if option.name not in shown:
            show(option.name, type(option.default), option.default, option.help)
    return {"flags": shown}
