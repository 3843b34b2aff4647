"""The command line: makes absl flags of Experiment's fields and of the chosen model's, and turns faults into exit codes.

The only file that imports absl.
"""

import time

BEGAN = time.time()  # before the imports, which are most of the start
import sys

from percept_jax import environment, signals
from percept_jax.console import say
from percept_jax.errors import PerceptError, UsageError, first_line

if __name__ == "__main__":
    signals.open_standard_streams()
    signals.listen()
try:
    environment.check()
except UsageError as error:
    say(str(error), error=True)
    sys.exit(error.exit_code)

import contextlib
import dataclasses
import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin

from absl import flags

from percept_jax import models
from percept_jax.checks import check_type, is_union, number, said, short, unknown
from percept_jax.experiment import DEFAULTS, TYPES, Experiment
from percept_jax.flagfile import COMMAND_LINE, Setting, expand
from percept_jax.labels import in_a_line
from percept_jax.request import Request, SweepRequest
from percept_jax.sweeps import spec
from percept_jax.sweeps.parse import understand

# What is asked of a command, and is no part of an experiment: name -> (default, help).
OPTIONS: dict[str, tuple[Any, str]] = {
    "help": (False, "what each flag does, with its default"),
    "dry_run": (False, "what would run: flags with their origins, layers, parameters, memory, steps; arms, trials and time"),
    "json": (False, "for programs: one JSON object as the last line of standard output"),
    "top_k": (3, "predict: classes shown for each image"),
    "length": (300, "predict: characters that a language model goes on for"),
    "temperature": (1.0, "predict: below 1 the likelier characters are drawn more often, at 0 always the likeliest"),
    "to": ("", "export: the file to write, FILE.safetensors; compare: the folder for the table"),
    "from": ("", "prepare: the folder with the files as their authors distribute them; empty: download them"),
    "file_format": ("array_record", "prepare: array_record for tfds.data_source, or tfrecord for tfds.load"),
    "boundary": (False, "plot: the decision boundary of a model of points"),
    "sweep": (False, "run what the command line says as a sweep: values in braces, as in a .sweep file"),
    **{name: ("", f"sweep: {text}") for name, text in spec.FLAGS.items()},
    "pack": ("auto", "sweep: trials stepped together: auto, as measured; off, each as it would be alone; or a number a device"),
    "workers": (1, "sweep: processes on this machine that share it, one a device or each with its share of the cores"),
    "shard": ("", "sweep: do one part of n, i/n counted from 0, in an array job whose tasks share a file system"),
    "augmentations": (False, "plot: what the augmentation of a flag file does to training images"),
}


class _Typed(flags.ArgumentParser):
    """A value of a declared type, as a person writes it: a number, a list such as 300,100, or a number or one of some words."""

    def __init__(self, hint: Any):
        self._hint = hint

    def parse(self, argument: str) -> Any:
        kinds = get_args(self._hint)
        if not kinds:
            return number(argument, self._hint)
        try:
            if not is_union(self._hint):
                return tuple(number(text, kinds[0]) for text in argument.split(",")) if argument else ()
            return argument if argument in get_args(kinds[1]) else number(argument, kinds[0])
        except UsageError as error:
            raise UsageError(f"{short(argument)} is not {said(self._hint)}: {error}") from error


def parse(args: Sequence[str]) -> Request | SweepRequest:
    """Understands a command line. Raises UsageError, with the place of the fault."""
    booleans = {n for n, (default, _) in OPTIONS.items() if default is False} | {n for n, t in TYPES.items() if t is bool}
    booleans |= {k.name for model in models.MODELS for k in models.knobs(model) if k.type is bool}
    bare = booleans | {"no" + name for name in booleans}
    words, settings, file = expand(["--help" if arg == "-h" else arg for arg in args], bare)
    if words[:1] == [file] or any(setting.name == "sweep" for setting in settings):
        return understand(args, words, settings, file, _understand, OPTIONS, booleans)
    for one, other in itertools.pairwise(settings):
        differ = one.name == other.name and None not in (one.text, other.text) and one.text != other.text
        if differ and one.origin == other.origin == COMMAND_LINE:
            said = f"{one.text} and {other.text}, one after the other, as a shell makes of braces; a sweep wants --sweep"
            raise UsageError(said, one.name, COMMAND_LINE)
    experiment, options, origins = _understand(settings)
    if Path(file).name == "run.flags" and Path(file).resolve().parent.parent.name == "trials" and not experiment.run_dir:
        experiment = dataclasses.replace(experiment, run_dir=str(Path(file).resolve().parent))  # a trial of a sweep
    return Request(words, experiment, options, origins, file, _name(file))


def _understand(settings: Sequence[Setting]) -> tuple[Experiment, dict[str, Any], dict[str, str]]:
    """The experiment and the options that settings describe, the last of a flag counting, and where each was given."""
    model = next((s for s in reversed(settings) if s.name == "model"), Setting("model", DEFAULTS["model"], ""))
    with _located({"model": model.origin}):
        own = models.knobs(model.text) if model.text else _needs_value("model")
    values, origins = {}, {}
    for setting in settings:
        name, value = _value(setting, model.text)
        values[name], origins[name] = value, setting.origin
        other = {"epochs": "steps", "steps": "epochs"}.get(name)  # the one said last takes the other's place
        if other and value:
            replaced = bool(values.pop(other, None)) and origins.pop(other)
            if replaced == setting.origin == COMMAND_LINE:
                raise UsageError(f"give either --epochs or --steps; --{other} is on the command line too", name, COMMAND_LINE)
    knobs = {k.name: values.pop(k.name) for k in own if k.name in values}
    options = {name: values.pop(name, default) for name, (default, _) in OPTIONS.items()}
    return Experiment(**values, knobs=knobs), options, origins


def _name(file: str) -> str:
    """The flag file's stem; for the run.flags of runs/<name>/<id> that name, so that it means the same run."""
    folder = Path(file).resolve().parent
    if Path(file).name == "run.flags" and re.fullmatch(r"[0-9a-f]{12}", folder.name):
        return folder.parent.name
    return Path(file).stem


def _declare(hints: Mapping[str, Any]) -> flags.FlagValues:
    """An absl flag of the right type for each name; defaults stay with the fields."""
    declared = flags.FlagValues()
    for name, hint in hints.items():
        if hint in (int, float) or is_union(hint) or get_origin(hint) is tuple:
            flags.DEFINE(_Typed(hint), name, None, "", flag_values=declared)
        else:
            define = flags.DEFINE_bool if hint is bool else flags.DEFINE_string
            define(name, None, "", flag_values=declared)
    return declared


@functools.cache
def _known(model: str, module: Any) -> tuple[dict[str, Any], flags.FlagValues]:
    """The type of every flag that goes with a model, and the flags; `module` is what its name means now."""
    knobs = {k.name: k.type for k in models.knobs(model)}
    hints = TYPES | knobs | {name: type(default) for name, (default, _) in OPTIONS.items()}
    return hints, _declare(hints)


def _value(setting: Setting, model: str) -> tuple[str, Any]:
    """The flag's name (without a leading "no") and its value, parsed by absl and checked against its type."""
    hints, declared = _known(model, models.MODELS[model])
    name, text, origin = setting
    negated = name not in hints and name.startswith("no") and hints.get(name[2:]) is bool
    name = name[2:] if negated else name
    if name not in hints:
        owned = any(name == k.name for other in models.MODELS for k in models.knobs(other))
        if not owned:
            raise UsageError(unknown(f"--{name}", [f"--{known}" for known in hints]), where=origin)
        raise UsageError(models.foreign(name, model), name, origin)
    with _located({name: origin}):
        if negated and text is not None:
            raise UsageError(f"write --{name}=true or --{name}=false; --no{name} takes no value", name)
        if text is None and hints[name] is not bool:
            _needs_value(name)
        try:
            declared(["percept_jax", f"--{setting.name}" + ("" if text is None else f"={text}")])
        except (flags.Error, ValueError) as error:
            raise UsageError(f"{short(text or '')} is not {said(hints[name])}", name) from error
        except UsageError as error:  # of our parsers, which do not know whose value it is
            error.flag = name
            raise
        check_type(name, declared[name].value, hints[name])
    return name, declared[name].value


def _needs_value(name: str) -> NoReturn:
    raise UsageError(f"needs a value: --{name}=VALUE", name)


@contextlib.contextmanager
def _located(origins: Mapping[str, str], elsewhere: str = "") -> Iterator[None]:
    """Adds the place where a flag was given to a UsageError about it, or else what ought to have given it."""
    try:
        yield
    except UsageError as error:
        if error.flag and not error.where:
            error.where = origins.get(error.flag, elsewhere)
        raise


def run(request: Request | SweepRequest) -> dict[str, Any]:
    """Does what was asked, printing for a person; what it found, for programs."""
    from percept_jax import commands, describe

    if isinstance(request, SweepRequest):
        if request.options["help"]:
            return describe.show_help(None, OPTIONS)
        with signals.Signals() as interrupted:
            return commands.sweep(request, interrupted)
    command, *rest = request.words or [""]
    if request.options["help"]:
        return describe.show_help(request.experiment.model if "model" in request.origins else None, OPTIONS)
    if command and command not in commands.COMMANDS:
        raise UsageError(unknown(command, [*commands.COMMANDS, "FILE.flags"]), where=COMMAND_LINE)
    if not command and not request.origins:
        what = "it sets nothing" if request.file else "nothing to run: give a flag file or a command"
        raise UsageError(what, where=request.file or COMMAND_LINE)
    with _located(request.origins, request.file or COMMAND_LINE):
        for flag in request.origins:
            if not commands.listens(command, flag, request.options):
                hint = "; with --sweep it does" if not command and flag in spec.FLAGS else ""
                raise UsageError(f"does not apply to {command or 'training'}{hint}", flag)
        if command:
            return commands.COMMANDS[command](request._replace(words=rest))
        if request.options["dry_run"]:
            return describe.dry_run(request.experiment, request.name, request.origins)
        return _train(request)


def _train(request: Request) -> dict[str, Any]:
    from percept_jax import commands

    with signals.Signals() as interrupted:
        return commands.train(request.experiment, request.name, interrupted, BEGAN)


def main(args: Sequence[str]) -> int:
    """Runs a command line; its exit code (see the README)."""
    as_json = _asks_for_json(args)
    try:
        request = parse(args)
        as_json = request.options["json"]
        code, found = 0, run(request)
    except PerceptError as error:
        code, found = error.exit_code, {**error.found, **_fault(str(error))}
    except signals.Stopped as stopped:
        code = 128 + stopped.number
        found = _fault("interrupted before there was anything new to save; the same command starts again from where it was")
    except OSError as error:
        code, found = 3, _fault(f"{error.filename or 'storage'}: {error.strerror or error}")
    except Exception as error:
        code, found = _explained(error)
    if as_json:
        say(json.dumps(found, allow_nan=False))
    return code


def _explained(error: Exception) -> tuple[int, dict[str, Any]]:
    """The exit code of an error that is no fault of ours, with what is said of it. Raises it again where it is one."""
    if fault := environment.backend_fault(error):
        return fault.exit_code, _fault(str(fault))
    if isinstance(error, MemoryError) or re.search("RESOURCE_EXHAUSTED|Out of memory", str(error)):
        return 5, _fault(f"out of memory: {first_line(error)}; try a smaller --batch_size, see --dry_run")
    raise error


def _asks_for_json(args: Sequence[str]) -> bool:
    """Whether the last word about --json is for it, on a command line that may not be understood."""
    asks = False
    for arg in args:
        name, _, text = arg.lstrip("-").partition("=")
        if arg.startswith("-") and name in ("json", "nojson"):
            asks = name == "json" and text.lower() not in ("false", "f", "0")
    return asks


def _fault(line: str) -> dict[str, Any]:
    line = in_a_line(line)
    say(line, error=True)
    return {"error": line}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
