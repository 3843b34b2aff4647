"""Parses the command line of a sweep: the arms of its file become experiments."""

import hashlib
import json
import shlex
from collections.abc import Sequence, Set
from pathlib import Path

from percept_jax.cli.commands import OPTIONS as ALL_OPTIONS
from percept_jax.cli.flagfile import COMMAND_LINE, read_sweep, read_text
from percept_jax.cli.flags import booleans, understand
from percept_jax.errors import UsageError
from percept_jax.experiment import KNOBS
from percept_jax.settings import Section, Setting
from percept_jax.sweeps import spec
from percept_jax.sweeps.plan import ArmPlan
from percept_jax.sweeps.request import SweepRequest
from percept_jax.sweeps.spec import Spec

# Options that are not settings of the arms.
OPTIONS = ("help", "dry_run", "json", "sweep", "pack", "workers", "shard")
# Settings that do not make a different sweep of a file: where and how it runs, and what its table shows.
SAME_SWEEP = {*OPTIONS, "metric", "baseline", *(name for name, knob in KNOBS.items() if knob.role == "infra")}


def parse(arguments: Sequence[str], words: Sequence[str], settings: Sequence[Setting], file: str) -> SweepRequest:
    """Returns the sweep of a .sweep file, or of a flag file with --sweep, with what the command line adds.

    Args:
        arguments: the command line.
        words: its arguments that are neither flags nor flag files.
        settings: the settings of the flag file and of the command line.
        file: the sweep file or flag file; empty without one.

    Raises:
        UsageError: something in the file or on the command line is wrong; the message says where.
    """
    if words != [file] * file.endswith(".sweep"):
        raise UsageError(
            "usage: FILE.sweep [--flag=value ...], or FILE.flags --sweep [--flag={value,value} ...]", where=COMMAND_LINE
        )
    plain = booleans()
    overrides = [setting for setting in settings if setting.origin == COMMAND_LINE]
    if file.endswith(".sweep"):
        sections, text = read_sweep(Path(file)), read_text(Path(file))
    else:
        sections = [Section("", file or COMMAND_LINE, [setting for setting in settings if setting.origin != COMMAND_LINE])]
        text = f"# {file}\n" if file else ""
    base, *named = (s._replace(settings=[_spelled_out(setting, plain) for setting in s.settings]) for s in sections)
    overrides = [_spelled_out(setting, plain) for setting in overrides]
    _, options, given = understand([s for s in (*base.settings, *overrides) if s.name in OPTIONS])
    for setting in (*base.settings, *overrides):
        _refuse(setting, file, in_arm=False)
    for setting in (setting for section in named for setting in section.settings):
        _refuse(setting, file, in_arm=True)
    base = base._replace(settings=[s for s in base.settings if s.name not in OPTIONS])
    changes = [s for s in overrides if s.name not in OPTIONS]
    found = spec.build([base, *named], changes)
    arms = []
    for arm in found.arms:
        experiment, _, origins = understand(arm.settings)
        candidates = [understand([*arm.settings, *tried])[0] for tried in found.candidates]
        tuned_at = {setting.name: setting.origin for tried in found.candidates for setting in tried}
        arms.append(ArmPlan(arm.name, experiment, origins, candidates, tuned_at, arm.origin))
    added = [f"--{s.name}" if s.text is None else f"--{s.name}={s.text}" for s in changes if s.name not in SAME_SWEEP]
    if added:
        text = f"# on the command line: {shlex.join(added)}\n{text}"
    name = _name(Path(file).stem if file else arms[0].experiment.model, found) if added else Path(file).stem
    return SweepRequest(found, arms, options, given, file or COMMAND_LINE, name, text, arguments)


def _spelled_out(setting: Setting, booleans: Set[str]) -> Setting:
    """Returns --flag as --flag=true, and --noflag as --flag=false, so that an arm can override the factor of such a flag."""
    name, text, _ = setting
    if text is None and name in booleans:
        return setting._replace(text="true")
    if text is None and name.removeprefix("no") in booleans:
        return setting._replace(name=name.removeprefix("no"), text="false")
    return setting


def _refuse(setting: Setting, file: str, in_arm: bool) -> None:
    """Raises UsageError for a setting that does not apply to a sweep, or not at this place."""
    if setting.name in ALL_OPTIONS and setting.name not in OPTIONS and setting.name not in spec.FLAGS:
        raise UsageError("does not apply to a sweep", setting.name, setting.origin)
    if setting.name == "seed" and (in_arm or setting.origin == COMMAND_LINE or setting.origin.startswith(f"{file}:")):
        raise UsageError("use --seeds in a sweep: the same seeds for every arm", setting.name, setting.origin)
    if in_arm and setting.name in (*OPTIONS, "run_dir", "fresh"):
        raise UsageError("applies to the whole sweep: give it above the first arm", setting.name, setting.origin)


def _name(stem: str, found: Spec) -> str:
    """Returns a name with a digest of the command line's values, which does not depend on how the shell spelled them."""
    arms = [[s[:2] for s in arm.settings if s.origin == COMMAND_LINE and s.name not in SAME_SWEEP] for arm in found.arms]
    tried = [[setting[:2] for setting in settings] for settings in found.candidates]
    digest = hashlib.sha256(json.dumps([arms, found.seeds, found.design, tried]).encode()).hexdigest()
    return f"{stem}-{digest[:8]}"
