"""The content of a sweep file: the arms that are compared, their seeds, and what is tuned in each arm."""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from percept_jax import validation
from percept_jax.errors import UsageError
from percept_jax.settings import Section, Setting
from percept_jax.sweeps import factors
from percept_jax.sweeps.factors import MOST, Axis, Factor

FLAGS = {
    "seeds": "seeds of each arm: a number of trials (5: the seeds 0 to 4), or the seeds themselves: {10..14}",
    "metric": "metric that arms are compared by, such as test/accuracy",
    "baseline": "name of the arm that the others are compared with (default: the first)",
    "design": "how factors become arms: grid, ofat (one factor at a time), cumulative (each arm adds to the last) or halton",
    "trials": "number of points of --design=halton",
    "zip": "factors whose values change together: --zip=batch_size,learning_rate",
    "tune": "a flag to tune in each arm, with the values to try: --tune=learning_rate={log:1e-3..1}",
    "tune_trials": "number of Halton points over the tuned flags to try (default: every combination)",
}
DEFAULTS = {"seeds": "1", "design": "grid"}
DESIGNS = ("grid", "ofat", "cumulative", "halton")


class ArmSettings(NamedTuple):
    """The settings of one arm, as they were written.

    Attributes:
        name: the name of the arm.
        origin: where the arm was given.
        settings: all its settings, each flag once, in the order of the file.
    """

    name: str
    origin: str
    settings: tuple[Setting, ...]


class Spec(NamedTuple):
    """The content of a sweep file.

    Attributes:
        arms: at least one arm; their names are distinct.
        seeds: the seeds of each arm.
        metric: the metric to compare, as split/name; "" if none was given.
        baseline: the name of the arm that the others are compared with.
        design: one of DESIGNS.
        candidates: the settings that tuning tries in each arm; none without --tune.
        origins: where each of FLAGS was given.
    """

    arms: tuple[ArmSettings, ...]
    seeds: tuple[int, ...]
    metric: str
    baseline: str
    design: str
    candidates: tuple[tuple[Setting, ...], ...]
    origins: dict[str, str]


# The settings that a group of arms shares, and the axes whose combinations make one arm each.
_Block = tuple[ArmSettings, Sequence[Axis]]


def build(sections: Sequence[Section], overrides: Sequence[Setting] = ()) -> Spec:
    """Returns the sweep that a file describes.

    Args:
        sections: the sections of the file, as `flagfile.read_sweep` returns them.
        overrides: settings of the command line, which are added to the first section. A repeated flag has several values,
            because a shell expands --learning_rate={0.03,0.1} to repeated flags.

    Raises:
        UsageError: a value, a flag of the sweep or an arm is wrong, or there are more than MOST trials.
    """
    base, *named = sections
    given = [*base.settings, *_merged(overrides)]
    sweep_flags = {s.name: s for s in given if s.name in FLAGS}
    origins = {name: setting.origin for name, setting in sweep_flags.items()}
    sweep_flags = {name: Setting(name, text, base.origin) for name, text in DEFAULTS.items()} | sweep_flags
    base = base._replace(settings=[s for s in given if s.name not in FLAGS])
    _check_distinct(named)
    for setting in itertools.chain.from_iterable(section.settings for section in named):
        if setting.name in FLAGS:
            raise UsageError("applies to the whole sweep: give it above the first arm", setting.name, setting.origin)
    for setting in sweep_flags.values():
        if not setting.text:
            raise UsageError(f"needs a value: --{setting.name}=VALUE", setting.name, setting.origin)
    axes = _zipped(factors.read(base.settings), [s for s in given if s.name == "zip"])
    blocks = _blocks(base, named, axes, sweep_flags)
    tuned = _tuned([s for s in given if s.name == "tune"], sweep_flags, [f for _, axes in blocks for axis in axes for f in axis])
    seeds = _seeds(sweep_flags["seeds"])
    _check_count(blocks, seeds, tuned, sweep_flags)
    arms = tuple(itertools.chain.from_iterable(_arms(*block) for block in blocks))
    _check_distinct(arms)
    metric, baseline = (_text(sweep_flags[name]) if name in sweep_flags else "" for name in ("metric", "baseline"))
    if metric and not re.fullmatch(r"(validation|test)/\w+", metric):
        raise UsageError(f"{metric!r} is not validation/NAME or test/NAME", "metric", sweep_flags["metric"].origin)
    if baseline and baseline not in [arm.name for arm in arms]:
        raise UsageError(validation.unknown(baseline, [arm.name for arm in arms]), "baseline", sweep_flags["baseline"].origin)
    return Spec(
        arms,
        tuple(factors.whole(seeds.text(i), 0, "seeds", seeds.origin) for i in range(seeds.length)),
        metric,
        baseline or arms[0].name,
        _text(sweep_flags["design"]),
        tuple(factors.combinations(tuned)) if tuned else (),
        origins,
    )


def _text(setting: Setting) -> str:
    return setting.text or ""


def _merged(overrides: Iterable[Setting]) -> Iterator[Setting]:
    """Yields the settings of the command line; repeated settings of one flag become one setting with braces."""
    groups: dict[tuple, list[Setting]] = {}
    for i, setting in enumerate(overrides):
        about = {"tune": (setting.text or "").partition("=")[0], "zip": i}.get(setting.name)
        groups.setdefault((setting.name, setting.origin, about), []).append(setting)
    for (name, origin, about), group in groups.items():
        if len(group) == 1:
            yield group[0]
            continue
        before = f"{about}=" if name == "tune" else ""
        texts = [(setting.text or "").removeprefix(before) for setting in group]
        if re.search(r"[{}|]", "".join(texts)):
            raise UsageError("give several values either in one brace group or one by one, not both", name, origin)
        yield Setting(name, before + "{" + "|".join(texts) + "}", origin)


def _check_distinct(arms: Iterable[Section | ArmSettings]) -> None:
    origins: dict[str, str] = {}
    for arm in arms:
        if arm.name in origins:
            raise UsageError(f"a second arm {arm.name!r}; the first is at {origins[arm.name]}", where=arm.origin)
        origins[arm.name] = arm.origin


def _zipped(found: Mapping[str, Factor], zips: Iterable[Setting]) -> list[Axis]:
    """Returns factors as axes. The factors of a --zip are one axis, at the position of the first of them."""
    axes: dict[str, Axis] = {name: (factor,) for name, factor in found.items()}
    for _, text, origin in zips:
        names = [name.strip() for name in (text or "").split(",")]
        if len(names) < 2 or len(set(names)) < len(names):
            raise UsageError("needs two factors or more: --zip=batch_size,learning_rate", "zip", origin)
        for name in names:
            if name not in found:
                raise UsageError(f"{name!r} is not a factor above the first arm", "zip", origin)
            if len(axes[name]) > 1:
                raise UsageError(f"{name!r} is also in another --zip", "zip", origin)
        axis = tuple(found[name] for name in names)
        _check_lists([axis])
        if len({factor.size for factor in axis}) > 1:
            raise UsageError(f"unequal lengths: {', '.join(f'{f.name} has {f.size}' for f in axis)} values", "zip", origin)
        axes |= dict.fromkeys(names, axis)
    return list(dict.fromkeys(axes.values()))


def _check_lists(axes: Iterable[Axis]) -> None:
    """Raises UsageError if a factor is a continuous range, because a list of values is needed."""
    for factor in itertools.chain.from_iterable(axes):
        if factor.size is None:
            message = "the range needs a count, as in {0.1..0.9:5}; only --tune and --design=halton take ranges without"
            raise UsageError(message, factor.name, factor.origin)


def _blocks(base: Section, named: Sequence[Section], axes: Sequence[Axis], sweep_flags: Mapping[str, Setting]) -> list[_Block]:
    """Returns the blocks of a design, not yet expanded to arms."""
    _, design, origin = sweep_flags["design"]
    if design not in DESIGNS:
        raise UsageError(validation.unknown(design, DESIGNS), "design", origin)
    arm_axes = [[(factor,) for factor in factors.read(section.settings).values()] for section in named]
    if "trials" in sweep_flags and design != "halton":
        raise UsageError("requires --design=halton", "trials", sweep_flags["trials"].origin)
    if design == "cumulative":
        return _cumulative(base, named, [*axes, *itertools.chain(*arm_axes)], origin)
    if design == "halton":
        if "trials" not in sweep_flags or not axes:
            missing = "a flag with several values above the first arm" if "trials" in sweep_flags else "--trials=N"
            raise UsageError(f"halton needs {missing}", "design", origin)
        axes = [factors.halton(axes, factors.whole(_text(sweep_flags["trials"]), 1, "trials", sweep_flags["trials"].origin))]
    common = tuple(base.settings)
    blocks = [(ArmSettings("", base.origin, common), axes)]
    if design == "ofat":
        blocks = [
            (ArmSettings("", base.origin, common), ()),
            *((ArmSettings("", axis[0].origin, common), [axis]) for axis in axes),
        ]
        axes = ()
    for section, section_axes in zip(named, arm_axes, strict=True):
        set_here = {setting.name for setting in section.settings}
        # --epochs and --steps override each other.
        set_here |= {"epochs", "steps"} if set_here & {"epochs", "steps"} else set()
        rest = [tuple(factor for factor in axis if factor.name not in set_here) for axis in axes]
        arm = ArmSettings(section.name, section.origin, (*common, *section.settings))
        blocks.append((arm, [*filter(None, rest), *section_axes]))
    for _, block_axes in blocks:
        _check_lists(block_axes)
    return blocks


def _cumulative(base: Section, named: Sequence[Section], axes: Sequence[Axis], origin: str) -> list[_Block]:
    if not named:
        raise UsageError("cumulative needs arms: [name]", "design", origin)
    if axes:
        raise UsageError("give one value: a cumulative design has no factors", axes[0][0].name, axes[0][0].origin)
    arms = [ArmSettings("", base.origin, tuple(base.settings))]
    for section in named:
        name = section.name if len(arms) == 1 else f"+ {section.name}"
        arms.append(ArmSettings(name, section.origin, (*arms[-1].settings, *section.settings)))
    return [(arm, ()) for arm in arms]


def _tuned(tunes: Iterable[Setting], sweep_flags: Mapping[str, Setting], others: Iterable[Factor]) -> list[Axis]:
    """Returns the tuned flags as axes."""
    trials = sweep_flags.get("tune_trials")
    tuned = {}
    for _, text, origin in tunes:
        name, _, values = (text or "").partition("=")
        if not re.fullmatch(r"\w[\w.-]*", name) or not re.search("[{}]", values):
            raise UsageError("write --tune=learning_rate={0.01,0.1}", "tune", origin)
        tuned[name] = factors.values(name, values, "tune", origin)
    for factor in others:
        if factor.name in tuned:
            raise UsageError(f"{factor.name} is also a factor, at {factor.origin}", "tune", tuned[factor.name].origin)
    axes = [(factor,) for factor in tuned.values()]
    if trials:
        if not axes:
            raise UsageError("needs --tune", "tune_trials", trials.origin)
        return [factors.halton(axes, factors.whole(_text(trials), 1, "tune_trials", trials.origin))]
    for factor in tuned.values():
        if factor.size is None:
            raise UsageError("a range without a count needs --tune_trials=N", "tune", factor.origin)
    return axes


def _seeds(setting: Setting) -> Factor:
    name, text, origin = setting.name, _text(setting), setting.origin
    if not re.search("[{}]", text):
        text = f"{{0..{factors.whole(text, 1, name, origin) - 1}}}"
    seeds = factors.values(name, text, name, origin)
    if seeds.size is None:
        raise UsageError("the ends of a range of seeds must be whole numbers: {10..14}", name, origin)
    return seeds


def _check_count(blocks: Sequence[_Block], seeds: Factor, tuned: Sequence[Axis], sweep_flags: Mapping[str, Setting]) -> None:
    """Raises UsageError if there are more than MOST trials. They are counted before any arm is created."""
    count = sum(math.prod(axis[0].length for axis in axes) for _, axes in blocks)
    count *= seeds.length + (math.prod(axis[0].length for axis in tuned) if tuned else 0)
    if count > MOST:
        factor_sizes = [(seeds.length, "seeds", seeds.origin)]
        factor_sizes += [
            (int(_text(sweep_flags[name])), name, sweep_flags[name].origin)
            for name in ("trials", "tune_trials")
            if name in sweep_flags
        ]
        factor_sizes += [(axis[0].length, axis[0].name, axis[0].origin) for _, axes in blocks for axis in axes]
        factor_sizes += [(axis[0].length, "tune", axis[0].origin) for axis in tuned]
        _, flag, origin = max(factor_sizes, key=lambda factor: factor[0])
        raise UsageError(f"{count} trials; at most {MOST} are possible", flag, origin)


def _arms(arm: ArmSettings, axes: Sequence[Axis]) -> Iterator[ArmSettings]:
    for point in factors.combinations(axes):
        words = [arm.name] * bool(arm.name) + [f"{setting.name}={setting.text}" for setting in point]
        chosen = {(setting.name, setting.origin): setting for setting in point}
        last: dict[str, Setting] = {}
        for setting in arm.settings:
            if "{" in (setting.text or ""):
                setting = chosen.get((setting.name, setting.origin))
            # A factor of another section has no value here, so its flag keeps its previous value.
            if setting:
                last.pop(setting.name, None)
                last[setting.name] = setting
        yield ArmSettings(", ".join(words) or "baseline", arm.origin, tuple(last.values()))
