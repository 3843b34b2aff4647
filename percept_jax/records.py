"""The JSON files of runs and sweeps: their fields and types, which are checked when a file is read, and their checksums.

provenance.json marks a directory as a run's, plan.json as a sweep's: only if this mark is undamaged are the files beside it
treated as this package's. Other tools read result.json, metrics.jsonl, run.flags and confusion.csv, so the checksums of these
files are in provenance.json, which is written just before result.json.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NotRequired, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

from percept_jax import files
from percept_jax.errors import StorageError

# The entries of a sweep's folder that are read without the sweep: its plan, the errors of its trials, their run directories.
PLAN_FILE, FAILURES_FILE, TRIALS_FOLDER = "plan.json", "failures.json", "trials"

# The values of `format` in a mark.
RUN, SWEEP, COMPARISON = "percept_jax run 1", "percept_jax sweep 1", "percept_jax comparison 1"


class Result(TypedDict):
    """result.json. For runs of this version the checksum is verified; for runs of others only these types are."""

    status: Literal["done", "diverged"]
    validation: dict[str, Any] | None
    test: dict[str, Any] | None
    steps: NotRequired[int]
    parameters: NotRequired[int]
    best_step: NotRequired[int | None]
    seconds: NotRequired[dict[str, float]]
    goodput: NotRequired[float]
    restarts: NotRequired[int]
    redone_steps: NotRequired[int]


class MetricRecord(TypedDict):
    """A `Metric` without its computation."""

    name: str
    higher_is_better: bool
    format: str
    shown: bool
    of: str


class Provenance(TypedDict):
    """provenance.json.

    Attributes:
        format: RUN.
        identity: the identity of the run that the directory belongs to.
        code: the digest of the code that decides the result.
        clearing: whether the files of an earlier run are being deleted, or were when the process ended.
        restarts: the provenance of each start after the first.
        task, metrics: the task and its metrics; earlier versions did not record them.
        files: checksums of files beside this one, by name, once the run is finished.
    """

    format: NotRequired[str]
    identity: NotRequired[str]
    code: NotRequired[str]
    clearing: NotRequired[bool]
    devices: NotRequired[list[str]]
    pack: NotRequired[int]
    git_sha: NotRequired[str | None]
    restarts: NotRequired[list[dict[str, Any]]]
    task: NotRequired[str]
    metrics: NotRequired[list[MetricRecord]]
    files: NotRequired[dict[str, str]]


class PlannedArm(TypedDict):
    """An arm in plan.json: its flags, one per line, and its trials by seed; None if tuning has not chosen the settings yet."""

    name: str
    flags: list[str]
    trials: dict[str, str | None]
    error: NotRequired[str]


class PlannedPack(TypedDict):
    """A pack in plan.json."""

    width: int
    trials: list[str]


class PlannedProgram(TypedDict):
    """A program in plan.json."""

    asked: str
    milliseconds: dict[str, float]
    width: int
    devices: int
    packs: list[PlannedPack]


class Plan(TypedDict):
    """plan.json. `format` is SWEEP; `clearing` and `metrics` are as in Provenance."""

    format: NotRequired[str]
    clearing: NotRequired[bool]
    name: str
    file: NotRequired[str]
    metric: str
    metrics: NotRequired[list[MetricRecord]]
    baseline: str
    design: NotRequired[str]
    arms: list[PlannedArm]
    tuning: NotRequired[dict[str, list[str]]]
    share: NotRequired[bool]
    programs: NotRequired[dict[str, PlannedProgram]]


class Failure(TypedDict):
    """The error of a trial, and its time as `time.time()`."""

    error: str
    time: NotRequired[float]


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Writes a record with a checksum over it, atomically. Raises StorageError if the system reports an error."""
    record = {name: value for name, value in record.items() if name != "checksum"}
    files.write_json(path, record | {"checksum": files.digest(files.json_bytes(record))})


def read(path: Path, kind: Any) -> Any:
    """Returns a record that `write` wrote, without the checksum.

    A record without a checksum is from an earlier version; only its types are checked.

    Raises:
        StorageError: there is no file, it is damaged, or it is not a record of this `kind`.
    """
    record = files.read_json(path)
    if isinstance(record, dict) and "checksum" in record:
        checksum = record.pop("checksum")
        if checksum != files.digest(files.json_bytes(record)):
            raise StorageError(f"{path}: damaged: its checksum differs")
    return checked(record, kind, path)


def read_mark(path: Path, kind: Any, expected_format: str) -> Any:
    """Returns the mark of a directory, or None if there is none.

    Raises StorageError if it is damaged, or was written by another program or another version of this one.
    """
    if not path.exists() and not path.is_symlink():
        return None
    if path.is_symlink():
        raise StorageError(f"{path}: a symbolic link, so the directory is not treated as one of percept_jax")
    record = files.read_json(path)
    if not isinstance(record, dict) or record.get("format") != expected_format or "checksum" not in record:
        raise StorageError(f"{path}: made by another program, or by another version of this one")
    return read(path, kind)


def read_result(folder: Path) -> Result | None:
    """Returns the content of result.json in a run directory; None if the run is not finished.

    Raises StorageError if it is damaged, or is not what the run wrote.
    """
    path = folder / "result.json"
    if not path.exists() and not path.is_symlink():
        return None
    content = files.read_bytes(path)
    verify(folder, path.name, content)
    return checked(files.parse_json(content, path), Result, path)


def is_sweep(folder: Path) -> bool:
    """Whether a folder is a sweep's."""
    return (folder / PLAN_FILE).exists()


def read_plan(folder: Path) -> Plan:
    """Returns plan.json of a sweep's folder. Raises StorageError if it is missing or damaged."""
    return read(folder / PLAN_FILE, Plan)


def trial_dir(folder: Path, trial: str) -> Path:
    """Returns the run directory of a trial in a sweep's folder."""
    return folder / TRIALS_FOLDER / trial


def read_failures(folder: Path) -> dict[str, Failure]:
    """Returns the failures that a sweep's folder records, by trial; an empty dictionary if failures.json is absent or damaged."""
    path = folder / FAILURES_FILE
    if not path.exists():
        return {}
    try:
        return checked(read(path, dict), dict[str, Failure], path)
    except StorageError:
        return {}


def verify(folder: Path, name: str, content: bytes) -> None:
    """Raises StorageError unless `content` is what a finished run wrote to its file `name`."""
    mark = folder / "provenance.json"
    if not mark.exists():
        return
    provenance = read(mark, Provenance)
    if "format" not in provenance:
        # The run is from an earlier version, which recorded no checksums.
        return
    if name not in provenance.get("files", {}):
        raise StorageError(f"{folder / name}: not written by this run, which is not finished")
    if provenance["files"][name] != files.digest(content):
        raise StorageError(f"{folder / name}: damaged: not what the run wrote")


def read_whole(folder: Path, identity: str = "") -> tuple[Provenance | None, Result | None]:
    """Returns provenance.json and result.json of a run directory, or None for a missing one; checks all files of a finished run.

    Raises StorageError if a file is not what the run wrote, or if `identity` is given and it is another run.
    """
    mark = folder / "provenance.json"
    provenance = read_mark(mark, Provenance, RUN) if identity else read(mark, Provenance) if mark.exists() else None
    if identity and provenance and provenance["identity"] != identity:
        raise StorageError(f"{mark}: belongs to another run, {provenance['identity']}")
    result = read_result(folder)
    if result and provenance:
        for name in provenance.get("files", {}):
            verify(folder, name, files.read_bytes(folder / name))
    elif result and identity:
        raise StorageError(f"{mark}: the file has been deleted")
    return provenance, result


def checked(value: Any, kind: Any, path: Path) -> Any:
    """Returns `value`, which was read from `path`. Raises StorageError unless it has the type `kind`, such as a TypedDict."""
    if fault := _fault(value, kind, ""):
        raise StorageError(f"{path}: {fault}")
    return value


def _fault(value: Any, kind: Any, at: str) -> str:
    """Returns what is wrong with a value, or an empty text."""
    if is_typeddict(kind):
        if not isinstance(value, dict):
            return f"{at or 'it'} is {_kind(value)}, not an object"
        hints, required = get_type_hints(kind), kind.__required_keys__
        if missing := sorted(required - value.keys()):
            return f"{missing[0]} is missing{f' in {at}' if at else ''}"
        return next((f for n in hints.keys() & value.keys() if (f := _fault(value[n], hints[n], f"{at}.{n}".lstrip(".")))), "")
    if get_origin(kind) is Literal:
        return "" if value in get_args(kind) else f"{at} is {value!r:.40}, not {' or '.join(get_args(kind))}"
    if get_origin(kind) is UnionType:
        faults = [_fault(value, one, at) for one in get_args(kind)]
        return "" if "" in faults else faults[0]
    if get_origin(kind) is list and isinstance(value, list):
        return next((f for i, item in enumerate(value) if (f := _fault(item, get_args(kind)[0], f"{at}[{i}]"))), "")
    if get_origin(kind) is dict and isinstance(value, dict):
        return next((f for name, item in value.items() if (f := _fault(item, get_args(kind)[1], f"{at}.{name}"))), "")
    return "" if _is(value, kind) else f"{at or 'it'} is {_kind(value)}, not {_name(kind)}"


def _is(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return get_origin(kind) is None and isinstance(value, kind)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _name(kind: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a whole number", float: "a number"}
    return "null" if kind is NoneType else names[get_origin(kind) or kind]
