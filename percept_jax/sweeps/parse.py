"""From settings to a sweep that has been understood: its arms as experiments."""

import hashlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from percept_jax.errors import UsageError
from percept_jax.experiment import KNOBS, Experiment
from percept_jax.flagfile import COMMAND_LINE, Section, Setting, read_sweep
from percept_jax.request import SweepRequest
from percept_jax.sweeps import spec
from percept_jax.sweeps.plan import Setup

# Options of the command that a sweep listens to, and what only changes its table: they make no other sweep of it.
OPTIONS = ("help", "dry_run", "json", "sweep", "pack", "workers", "shard")
SAME_SWEEP = {*OPTIONS, "metric", "baseline", *(name for name, knob in KNOBS.items() if knob.role == "infra")}

Understand = Callable[[Sequence[Setting]], tuple[Experiment, dict[str, Any], dict[str, str]]]


def understand(
    arguments: Sequence[str],
    words: Sequence[str],
    settings: Sequence[Setting],
    file: str,
    read: Understand,
    known: Mapping[str, Any],
) -> SweepRequest:
    """The sweep of a .sweep file, or of a flag file with --sweep, with what the command line adds.

    Args:
        arguments: the command line.
        words: those of it that are neither a flag nor a flag file.
        settings: of the flag file, and of the command line.
        file: the file; empty without one.
        read: makes an experiment and options of settings.
        known: the options of all commands.

    Raises:
        UsageError: with the place of what is wrong in the file or on the command line.
    """
    overrides = [setting for setting in settings if setting.origin == COMMAND_LINE]
    if file.endswith(".sweep"):
        sections, text = read_sweep(Path(file)), Path(file).read_text(encoding="utf-8-sig")
    elif words:
        raise UsageError("usage: FILE.flags --sweep [--flag={value,value} ...]", where=COMMAND_LINE)
    else:
        sections = [Section("", file or COMMAND_LINE, [setting for setting in settings if setting.origin != COMMAND_LINE])]
        text = f"# {file}\n" if file else ""
    base, *named = sections
    _, options, _ = read([s for s in (*base.settings, *overrides) if s.name in OPTIONS])
    foreign = [s for section in sections for s in section.settings] + overrides
    for setting in foreign:
        _refuse(setting, file, known, in_arm=any(setting in section.settings for section in named))
    base = base._replace(settings=[s for s in base.settings if s.name not in OPTIONS])
    changes = [s for s in overrides if s.name not in OPTIONS]
    found = spec.build([base, *named], changes)
    setups = []
    for arm in found.arms:
        experiment, _, origins = read(arm.settings)
        candidates = [read([*arm.settings, *tried])[0] for tried in found.candidates]
        setups.append(Setup(arm.name, experiment, origins, candidates))
    added = [f"--{s.name}" if s.text is None else f"--{s.name}={s.text}" for s in changes if s.name not in SAME_SWEEP]
    if added:
        text = f"# on the command line: {shlex.join(added)}\n{text}"
    return SweepRequest(found, setups, options, file or COMMAND_LINE, _name(file, setups[0], added), text, arguments)


def _refuse(setting: Setting, file: str, known: Mapping[str, Any], in_arm: bool) -> None:
    """Raises UsageError for what a sweep does not listen to, or not there."""
    if setting.name in known and setting.name not in OPTIONS and setting.name not in spec.FLAGS:
        raise UsageError("does not apply to a sweep", setting.name, setting.origin)
    if setting.name == "seed" and (in_arm or setting.origin == COMMAND_LINE or setting.origin.startswith(f"{file}:")):
        raise UsageError("a sweep has --seeds, the same for every arm", setting.name, setting.origin)
    if in_arm and setting.name in (*OPTIONS, "run_dir", "fresh"):
        raise UsageError("is of the whole sweep: give it above the first arm", setting.name, setting.origin)


def _name(file: str, first: Setup, added: Sequence[str]) -> str:
    """The file's stem; with the command line's share in it, where it makes another sweep."""
    stem = Path(file).stem if file else first.experiment.model
    return f"{stem}-{hashlib.sha256(repr(added).encode()).hexdigest()[:8]}" if added else stem
