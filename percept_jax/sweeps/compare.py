"""Reads sweeps and run directories into arms that can be compared."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from percept_jax import files, metrics, records, validation
from percept_jax.errors import StorageError, UsageError
from percept_jax.records import SWEEP, Plan, Provenance
from percept_jax.sweeps.comparison import Arm, Outcome
from percept_jax.sweeps.failures import read_failures
from percept_jax.sweeps.statistics import changed, value

_BY_WORTH = ("done", "diverged", "failed", "damaged", "missing")


class Sweep(NamedTuple):
    """What `statistics.compare` takes: `compare(*load(paths))`."""

    name: str
    arms: Sequence[Arm]
    metric: str
    baseline: str
    left_out: int = 0  # trials of the same flags and seed as another one


def load(paths: Sequence[Path], metric: str = "", baseline: str = "") -> Sweep:
    """The arms of sweeps, and of run directories, put together.

    Arms of the same flags are one arm under the first one's name; of two trials of one seed the one that came further
    counts, else the first. Arms of different flags under one name get "sweep: arm".

    Args:
        paths: one or more; run directories come after the sweeps, grouped by their flags.
        metric: as split/number; "": the first sweep's, for run directories the headline of the test split.
        baseline: name of an arm; "": the first sweep's baseline, for run directories the first one's arm.

    Raises:
        UsageError: a path is neither a sweep nor a run; no finished trial reports the metric; no arm is the baseline.
        StorageError: a file is damaged.
    """
    sweeps, runs = {}, []
    for path in paths:
        if (path / "plan.json").exists():
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
    paths_of = [
        {o.path.resolve() for arm in some for o in arm.outcomes if o.result}
        for some in (*(s.arms for s in sweeps.values()), arms)
    ]
    left_out = len(set().union(*paths_of[:-1]) - paths_of[-1])
    return Sweep(name, arms, metric, baseline or next(arm.name for arm in arms if arm.flags == base), left_out)


def _read_sweep(path: Path) -> Sweep:
    plan = records.read(path / "plan.json", Plan)
    failures = read_failures(path)
    _check_plan(plan, path / "plan.json")
    arms = []
    for arm in plan["arms"]:
        outcomes = [
            _outcome(int(seed), path / "trials" / trial, failures.get(trial), trial if plan.get("format") == SWEEP else "")
            if trial
            else Outcome(int(seed), path, "failed" if arm.get("error") else "missing", error=arm.get("error", ""))  # not tuned
            for seed, trial in arm["trials"].items()
        ]
        arms.append(Arm(arm["name"], _flags(arm["flags"]), outcomes, metrics.read(plan)))
    return Sweep(plan["name"], arms, plan["metric"], plan["baseline"])


def _check_plan(plan: Plan, path: Path) -> None:
    """Raises StorageError where a plan's names and numbers make no sense."""
    names = [arm["name"] for arm in plan["arms"]]
    texts = [plan["name"], plan["metric"], *names, *(line for arm in plan["arms"] for line in arm["flags"])]
    if plan["baseline"] not in names or any(not text.isprintable() for text in texts):
        raise StorageError(f"{path}: damaged: its arms and its baseline are not those of a sweep")
    for seed, trial in (item for arm in plan["arms"] for item in arm["trials"].items()):
        named = trial is None or re.fullmatch(r"[\w-]{1,64}", trial, re.ASCII)
        if not named or not re.fullmatch(r"[0-9]{1,18}", seed):
            raise StorageError(f"{path}: damaged: {trial!r:.80} is not the name of a trial, or {seed!r:.80} no seed")


def _read_runs(paths: Sequence[Path]) -> Sweep:
    groups: dict[frozenset[tuple[str, str]], Arm] = {}
    for path in paths:
        try:
            flags = _run_flags(path)
        except StorageError as error:  # it costs itself alone
            groups[frozenset([("run", str(path))])] = Arm("", {"run": str(path)}, [Outcome(0, path, "damaged", error=str(error))])
            continue
        outcome = _outcome(int(flags.pop("seed")), path)
        known = metrics.read(records.read(path / "provenance.json", Provenance))
        arm = groups.setdefault(frozenset(flags.items()), Arm("", flags, [], known))
        arm.outcomes.append(outcome)
    name = paths[0].resolve().parent.name
    names = _name([arm.flags for arm in groups.values()]) if len(groups) > 1 else [name]
    arms = [arm._replace(name=called) for arm, called in zip(groups.values(), names, strict=True)]
    return Sweep(name, arms, _headline(arms), names[0])


def _name(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """A name for each setting: what it has otherwise than the first, which is the baseline."""
    first = settings[0]
    every = {flag: None for flags in settings for flag in flags}  # a dict keeps their order
    # Knobs that come with another model tell nothing, unless they vary too.
    varied = [flag for flag in every if len({flags[flag] for flags in settings if flag in flags}) > 1]
    told = [{flag: flags[flag] for flag in varied if flags.get(flag, first.get(flag)) != first.get(flag)} for flags in settings]
    names = [", ".join(f"{flag}={text}" for flag, text in pairs.items()) for pairs in told]
    if len(set(names)) < len(names):
        names = [", ".join(f"{flag}={text}" for flag, text in changed(flags, first).items()) for flags in settings]
    return ["baseline", *names[1:]]


def _outcome(seed: int, path: Path, failure: Mapping[str, Any] | None = None, identity: str = "") -> Outcome:
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


def _merge(sweeps: Mapping[Path, Sweep]) -> list[Arm]:
    merged: dict[frozenset[tuple[str, str]], Arm] = {}
    labels = {}
    names = Counter(sweep.name for sweep in sweeps.values())
    for path, sweep in sweeps.items():
        label = sweep.name if names[sweep.name] == 1 else str(path)
        for arm in sweep.arms:
            key = frozenset(arm.flags.items())
            known = merged.setdefault(key, arm._replace(outcomes=[]))
            merged[key] = known._replace(outcomes=_furthest([*known.outcomes, *arm.outcomes]))
            labels.setdefault(key, f"{label}: {arm.name}")
    same = Counter(arm.name for arm in merged.values())
    return [arm._replace(name=labels[key]) if same[arm.name] > 1 else arm for key, arm in merged.items()]


def _furthest(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """One outcome a seed, in their order."""
    best: dict[int, Outcome] = {}
    for outcome in sorted(outcomes, key=lambda o: _BY_WORTH.index(o.status)):
        best.setdefault(outcome.seed, outcome)
    return [best[seed] for seed in sorted(best)]


def _check_metric(metric: str, arms: Sequence[Arm]) -> None:
    done = [outcome for arm in arms for outcome in arm.outcomes if outcome.status == "done"]
    if done and all(value(outcome, metric) is None for outcome in done):
        splits = [(split, outcome.result[split] or {}) for split in ("validation", "test") for outcome in done]
        reported = dict.fromkeys(f"{split}/{number}" for split, numbers in splits for number in numbers)
        raise UsageError(f"no finished trial reports {metric!r}; they report {', '.join(reported)}", "metric")
    if not metric.startswith(("test/", "validation/")):
        raise UsageError(f"{metric!r} is no number of a split; write test/accuracy, or validation/accuracy", "metric")
    # Refuses what is no metric.
    metrics.find(metric, [known for arm in arms for known in arm.metrics])


def _headline(arms: Sequence[Arm]) -> str:
    done = [(arm, outcome) for arm in arms for outcome in arm.outcomes if outcome.status == "done"]
    return f"test/{metrics.headline(done[0][0].metrics, done[0][1].result['test']).name}" if done else "test/loss"


def _flags(lines: Sequence[str]) -> dict[str, str]:
    parts = [line.removeprefix("--").partition("=") for line in lines if line.strip()]
    return {name: text for name, _, text in parts}


def _run_flags(path: Path) -> dict[str, str]:
    """What run.flags of a run directory says. Raises StorageError where it is not what the run wrote."""
    file = path / "run.flags"
    content = files.read_bytes(file)
    mark = records.read(path / "provenance.json", Provenance)
    if "files" in mark and mark["files"].get(file.name) != files.digest(content):
        raise StorageError(f"{file}: damaged: not what the run wrote")
    flags = _flags(content.decode(errors="replace").splitlines())
    if not re.fullmatch(r"[0-9]{1,18}", flags.get("seed", "")):
        raise StorageError(f"{file}: damaged: it has no seed")
    return flags
