"""Reads sweeps and run directories into arms that can be compared."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from percept_jax import files, metrics, records, validation
from percept_jax.analysis.comparison import Arm, Outcome
from percept_jax.analysis.statistics import changed, value
from percept_jax.errors import StorageError, UsageError
from percept_jax.records import SWEEP, Failure, Plan, Provenance

# Of two trials with the same flags and seed, the one whose status comes first counts.
_PREFERRED = ("done", "diverged", "failed", "damaged", "missing")

# The flags of an arm as a set, which identifies arms with the same flags.
_Flags = frozenset[tuple[str, str]]


class Loaded(NamedTuple):
    """The arguments of `statistics.compare`: call `compare(*load(paths))`.

    Attributes:
        name: the heading of the table.
        arms: the arms, with the outcomes of their trials.
        metric: the metric that is compared, as split/name.
        baseline: the name of the arm that the others are compared with.
        left_out: the number of trials that are not in the arms, because another one has the same flags and seed.
    """

    name: str
    arms: Sequence[Arm]
    metric: str
    baseline: str
    left_out: int = 0


def load(paths: Sequence[Path], metric: str = "", baseline: str = "") -> Loaded:
    """Reads sweeps and run directories. Returns all their arms.

    Arms with the same flags become one arm, under the name of the first. Of two trials with the same seed the one with the better
    status counts (see `_PREFERRED`), or else the first. Arms with different flags and the same name are renamed to "sweep: arm".

    Args:
        paths: one or more; run directories come after the sweeps, grouped by their flags.
        metric: as split/name; "" means the first sweep's, or for run directories the headline metric of the test split.
        baseline: the name of an arm; "" means the first sweep's baseline, or for run directories the first one's arm.

    Raises:
        UsageError: a path is neither a sweep nor a run; no finished trial reports the metric; no arm is the baseline.
        StorageError: a file is damaged.
    """
    sweeps, runs = {}, []
    for path in paths:
        if records.is_sweep(path):
            sweeps[path] = _read_sweep(path)
        elif (path / "provenance.json").exists():
            runs.append(path)
        else:
            raise UsageError(f"{path}: neither a sweep nor a run directory")
    if runs:
        sweeps[runs[0]] = _read_runs(runs)
    first = next(iter(sweeps.values()))
    arms = _merge(sweeps)
    metric = metric or first.metric
    _check_metric(metric, arms)
    names = [arm.name for arm in arms]
    if baseline and baseline not in names:
        raise UsageError(validation.unknown(baseline, names), "baseline")
    base = next(arm.flags for arm in first.arms if arm.name == first.baseline)
    name = " + ".join(dict.fromkeys(sweep.name for sweep in sweeps.values()))
    finished = set().union(*(_finished(sweep.arms) for sweep in sweeps.values()))
    left_out = len(finished - _finished(arms))
    return Loaded(name, arms, metric, baseline or next(arm.name for arm in arms if arm.flags == base), left_out)


def _finished(arms: Sequence[Arm]) -> set[Path]:
    return {outcome.path.resolve() for arm in arms for outcome in arm.outcomes if outcome.result}


def _read_sweep(folder: Path) -> Loaded:
    plan = records.read_plan(folder)
    failures = records.read_failures(folder)
    _check_plan(plan, folder / records.PLAN_FILE)
    arms = []
    for arm in plan["arms"]:
        outcomes = []
        for seed, trial in arm["trials"].items():
            if trial:
                # In older versions of plan.json a trial's name is not its identity.
                identity = trial if plan.get("format") == SWEEP else ""
                outcomes.append(_outcome(int(seed), records.trial_dir(folder, trial), failures.get(trial), identity))
            else:
                # Tuning has not yet found the settings of this arm, or it failed.
                error = arm.get("error", "")
                outcomes.append(Outcome(int(seed), folder, "failed" if error else "missing", error=error))
        arms.append(Arm(arm["name"], _flags(arm["flags"]), outcomes, metrics.read(plan)))
    return Loaded(plan["name"], arms, plan["metric"], plan["baseline"])


def _check_plan(plan: Plan, path: Path) -> None:
    """Raises StorageError if a plan's names and seeds are not valid."""
    names = [arm["name"] for arm in plan["arms"]]
    texts = [plan["name"], plan["metric"], *names, *(line for arm in plan["arms"] for line in arm["flags"])]
    if plan["baseline"] not in names or any(not text.isprintable() for text in texts):
        raise StorageError(f"{path}: damaged: its arms or its baseline are not valid")
    for seed, trial in (item for arm in plan["arms"] for item in arm["trials"].items()):
        valid = trial is None or re.fullmatch(r"[\w-]{1,64}", trial, re.ASCII)
        if not valid or not re.fullmatch(r"[0-9]{1,18}", seed):
            raise StorageError(f"{path}: damaged: {trial!r:.80} is not the name of a trial, or {seed!r:.80} is not a seed")


def _read_runs(paths: Sequence[Path]) -> Loaded:
    groups: dict[_Flags, Arm] = {}
    for path in paths:
        try:
            flags = _run_flags(path)
        except StorageError as error:
            # A damaged run becomes an arm of its own, and the others are compared.
            damaged = Outcome(0, path, "damaged", error=str(error))
            groups[frozenset([("run", str(path))])] = Arm("", {"run": str(path)}, [damaged])
            continue
        outcome = _outcome(int(flags.pop("seed")), path)
        known = metrics.read(records.read(path / "provenance.json", Provenance))
        key = frozenset(flags.items())
        arm = groups.get(key, Arm("", flags, [], known))
        groups[key] = arm._replace(outcomes=[*arm.outcomes, outcome])
    name = paths[0].resolve().parent.name
    names = _names([arm.flags for arm in groups.values()]) if len(groups) > 1 else [name]
    arms = [arm._replace(name=arm_name) for arm, arm_name in zip(groups.values(), names, strict=True)]
    return Loaded(name, arms, _headline(arms), names[0])


def _names(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Returns a name for each setting: the flags whose values differ from the first one's, which is the baseline."""
    first = settings[0]
    # A dict keeps the order of the flags.
    every = {flag: None for flags in settings for flag in flags}
    # Flags that only some of the models have are left out of the names, unless their values vary too.
    varied = [flag for flag in every if len({flags[flag] for flags in settings if flag in flags}) > 1]
    names = []
    for flags in settings:
        differing = {flag: flags[flag] for flag in varied if flags.get(flag, first.get(flag)) != first.get(flag)}
        names.append(", ".join(f"{flag}={text}" for flag, text in differing.items()))
    if len(set(names)) < len(names):
        names = [", ".join(f"{flag}={text}" for flag, text in changed(flags, first).items()) for flags in settings]
    return ["baseline", *names[1:]]


def _outcome(seed: int, path: Path, failure: Failure | None = None, identity: str = "") -> Outcome:
    try:
        provenance, result = records.read_whole(path, identity)
    except StorageError as error:
        return Outcome(seed, path, "damaged", error=str(error))
    starts = [provenance, *provenance.get("restarts", [])] if provenance else []
    shas = [str(start["git_sha"]) for start in starts if start.get("git_sha")]
    return Outcome(
        seed,
        path,
        status=result["status"] if result else "failed" if failure else "missing",
        result=result,
        git_sha="+".join(dict.fromkeys(shas)) or None,
        pack=provenance.get("pack", 1) if provenance else None,
        error=failure["error"] if failure and not result else "",
    )


def _merge(sweeps: Mapping[Path, Loaded]) -> list[Arm]:
    merged: dict[_Flags, Arm] = {}
    labels: dict[_Flags, str] = {}
    names = Counter(sweep.name for sweep in sweeps.values())
    for path, sweep in sweeps.items():
        label = sweep.name if names[sweep.name] == 1 else str(path)
        for arm in sweep.arms:
            key = frozenset(arm.flags.items())
            known = merged.setdefault(key, arm._replace(outcomes=[]))
            merged[key] = known._replace(outcomes=_one_per_seed([*known.outcomes, *arm.outcomes]))
            labels.setdefault(key, f"{label}: {arm.name}")
    same = Counter(arm.name for arm in merged.values())
    return [arm._replace(name=labels[key]) if same[arm.name] > 1 else arm for key, arm in merged.items()]


def _one_per_seed(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Returns one outcome for each seed, the one with the best status, in the order of the seeds."""
    best: dict[int, Outcome] = {}
    for outcome in sorted(outcomes, key=lambda o: _PREFERRED.index(o.status)):
        best.setdefault(outcome.seed, outcome)
    return [best[seed] for seed in sorted(best)]


def _check_metric(metric: str, arms: Sequence[Arm]) -> None:
    """Raises UsageError for a metric that no finished trial reports, or that no arm has."""
    done = [outcome for arm in arms for outcome in arm.outcomes if outcome.status == "done"]
    if done and all(value(outcome, metric) is None for outcome in done):
        splits = [(split, (outcome.result or {}).get(split) or {}) for split in ("validation", "test") for outcome in done]
        reported = dict.fromkeys(f"{split}/{number}" for split, numbers in splits for number in numbers)
        raise UsageError(f"no finished trial reports {metric!r}; they report {', '.join(reported)}", "metric")
    if not metric.startswith(("test/", "validation/")):
        raise UsageError(f"{metric!r} has no split; write test/accuracy or validation/accuracy, for example", "metric")
    metrics.find(metric, [known for arm in arms for known in arm.metrics])


def _headline(arms: Sequence[Arm]) -> str:
    done = [(arm, outcome.result) for arm in arms for outcome in arm.outcomes if outcome.result and outcome.status == "done"]
    return f"test/{metrics.headline(done[0][0].metrics, done[0][1]['test']).name}" if done else "test/loss"


def _flags(lines: Sequence[str]) -> dict[str, str]:
    parts = [line.removeprefix("--").partition("=") for line in lines if line.strip()]
    return {name: text for name, _, text in parts}


def _run_flags(path: Path) -> dict[str, str]:
    """Returns the flags in run.flags of a run directory. Raises StorageError if the file is not as the run wrote it."""
    file = path / "run.flags"
    content = files.read_bytes(file)
    mark: Mapping[str, Any] = records.read(path / "provenance.json", Provenance)
    if "files" in mark and mark["files"].get(file.name) != files.digest(content):
        raise StorageError(f"{file}: damaged: not what the run wrote")
    flags = _flags(content.decode(errors="replace").splitlines())
    if not re.fullmatch(r"[0-9]{1,18}", flags.get("seed", "")):
        raise StorageError(f"{file}: damaged: it has no seed")
    return flags
