"""Parses settings to typed values: the fields of an experiment and the options of commands, as absl flags."""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NoReturn, get_args, get_origin

from absl import flags

from percept_jax import models
from percept_jax.cli.commands import OPTIONS
from percept_jax.cli.flagfile import COMMAND_LINE, Setting
from percept_jax.errors import UsageError
from percept_jax.experiment import DEFAULTS, TYPES, Experiment
from percept_jax.validation import check_type, is_union, kind_name, number, short, unknown


class _Typed(flags.ArgumentParser):
    """Parses a value of a declared type: a number, a list such as 300,100, either of them, or a number or one of some words."""

    def __init__(self, hint: Any):
        self._hint = hint

    def parse(self, argument: str) -> Any:
        kinds = get_args(self._hint)
        if not kinds:
            return number(argument, self._hint)
        try:
            if not is_union(self._hint):
                return tuple(_numbers(argument, kinds[0])) if argument else ()
            if get_origin(kinds[1]) is Literal:
                return argument if argument in get_args(kinds[1]) else number(argument, kinds[0])
            numbers = _numbers(argument, kinds[0])
            return numbers[0] if len(numbers) == 1 else tuple(numbers)
        except UsageError as error:
            raise UsageError(f"{short(argument)} is not {kind_name(self._hint)}: {error}") from error


def _numbers(text: str, kind: type) -> list[int | float]:
    return [number(part, kind) for part in text.split(",")]


def booleans() -> set[str]:
    """Returns the flags that need no value."""
    found = {name for name, option in OPTIONS.items() if option.default is False}
    found |= {name for name, hint in TYPES.items() if hint is bool}
    return found | {knob.name for model in models.MODELS for knob in models.knobs(model) if knob.type is bool}


def understand(settings: Sequence[Setting]) -> tuple[Experiment, dict[str, Any], dict[str, str]]:
    """Returns the experiment and the options that settings describe, and where each was given.

    If a flag is given more than once, the last one counts. Raises UsageError, with the place of the error.
    """
    model = next((s for s in reversed(settings) if s.name == "model"), Setting("model", DEFAULTS["model"], ""))
    with located({"model": model.origin}):
        model_knobs = models.knobs(model.text) if model.text else _needs_value("model")
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for setting in settings:
        name, value = _value(setting, model.text)
        values[name], origins[name] = value, setting.origin
        # --epochs and --steps override each other; the last one counts.
        other = {"epochs": "steps", "steps": "epochs"}.get(name)
        if other and value:
            replaced = origins.pop(other, None) if values.pop(other, None) else None
            if replaced == setting.origin == COMMAND_LINE:
                raise UsageError(f"give either --epochs or --steps; --{other} is also on the command line", name, COMMAND_LINE)
    knobs = {k.name: values.pop(k.name) for k in model_knobs if k.name in values}
    options = {name: values.pop(name, option.default) for name, option in OPTIONS.items()}
    return Experiment(**values, knobs=knobs), options, origins


def _declare(hints: Mapping[str, Any]) -> flags.FlagValues:
    """Returns an absl flag of the right type for each name, without defaults: those are declared with the fields."""
    declared = flags.FlagValues()
    for name, hint in hints.items():
        if hint in (int, float) or is_union(hint) or get_origin(hint) is tuple:
            flags.DEFINE(_Typed(hint), name, None, "", flag_values=declared)
        else:
            define = flags.DEFINE_bool if hint is bool else flags.DEFINE_string
            define(name, None, "", flag_values=declared)
    return declared


@functools.cache
def _known(model: str, module: Any, options: tuple[str, ...]) -> tuple[dict[str, Any], flags.FlagValues]:
    """Returns the type of each flag that applies to a model, and the absl flags; `module` is the model's entry in MODELS."""
    knobs = {k.name: k.type for k in models.knobs(model)}
    hints = TYPES | knobs | {name: type(OPTIONS[name].default) for name in options}
    return hints, _declare(hints)


def _value(setting: Setting, model: str) -> tuple[str, Any]:
    """Returns a flag's name (without a leading "no") and its value, parsed by absl and checked against its type."""
    hints, declared = _known(model, models.MODELS[model], tuple(OPTIONS))
    name, text, origin = setting
    negated = name not in hints and name.startswith("no") and hints.get(name[2:]) is bool
    name = name[2:] if negated else name
    if name not in hints:
        is_other_knob = any(name == k.name for other in models.MODELS for k in models.knobs(other))
        if not is_other_knob:
            raise UsageError(unknown(f"--{name}", [f"--{known}" for known in hints]), where=origin)
        raise UsageError(models.foreign(name, model), name, origin)
    with located({name: origin}):
        if negated and text is not None:
            raise UsageError(f"write --{name}=true or --{name}=false; --no{name} takes no value", name)
        if text is None and hints[name] is not bool:
            _needs_value(name)
        try:
            declared(["percept_jax", f"--{setting.name}" + ("" if text is None else f"={text}")])
        except (flags.Error, ValueError) as error:
            raise UsageError(f"{short(text or '')} is not {kind_name(hints[name])}", name) from error
        except UsageError as error:
            # `_Typed` does not know the name of the flag.
            error.flag = name
            raise
        check_type(name, declared[name].value, hints[name])
    return name, declared[name].value


def _needs_value(name: str) -> NoReturn:
    raise UsageError(f"needs a value: --{name}=VALUE", name)


@contextlib.contextmanager
def located(origins: Mapping[str, str], elsewhere: str = "") -> Iterator[None]:
    """Adds to a UsageError the place where its flag was given, or else `elsewhere`."""
    try:
        yield
    except UsageError as error:
        if error.flag and not error.where:
            error.where = origins.get(error.flag, elsewhere)
        raise
