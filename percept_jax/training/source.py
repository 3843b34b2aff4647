"""A digest of the code that decides a result: of the modules that compute it. `syntax` says which parts of their text count."""

import ast
import contextlib
import functools
import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from percept_jax import files
from percept_jax.errors import StorageError
from percept_jax.paths import cache_folder
from percept_jax.training import syntax

PACKAGE = Path(__file__).resolve().parent.parent

# Results are computed by these modules and by everything that they import from this package, directly or not.
FOLLOWED = ("training/loop.py", "data/cache.py")
# This module counts only if weights are loaded.
LOADS = "training/init_from.py"
# Modules that handle files, messages and checks but compute nothing. They are skipped, with everything that only they import.
NEUTRAL = {
    *("errors.py", "files.py", "deletion.py", "paths.py", "console.py", "validation.py", "data/bad_records.py"),
    *("training/run_dir.py", "training/reporter.py", "training/stored.py"),
    *("training/checkpoint.py", "training/pack_checkpoints.py"),
}
# Modules of which only these definitions decide a result, with the definitions of the same module that they use.
DEFINITIONS = {
    "training/preflight.py": ("describe_data", "load_data", "image_size", "stored_size", "model_shape"),
    "data/registry.py": ("load", "open_reader", "describe"),
    "data/prepare.py": ("Digits",),
    "data/readers/arrays.py": ("stratified_split",),
}
# These tables say which data sets there are. The reader of the data set at hand is in the digest anyway.
TABLES = {"READERS", "PREPARABLE", "IMAGENET"}
# The folders of this package whose modules count if a file outside of the package imports them. Its other modules start or
# show runs, or are in the digest anyway.
LIBRARY = ("models", "tasks", "data")

# The number of digests that the cache keeps, the latest ones.
KEPT = 100


class _Part(NamedTuple):
    """The contribution of a module to a digest: its canonical text, and the files that it imports."""

    text: str
    imports: tuple[Path, ...] = ()


def digest(
    model: str, factory: Callable, reader: Callable, loads: bool = False, package: Path = PACKAGE, others: Iterable[Any] = ()
) -> str:
    """Returns a digest of the code that decides the results of a model on a data set.

    Args:
        model: the model's name in MODELS; other models are not in the digest.
        factory: the entry of MODELS: a class, which may be defined outside of this package, or a partial of one.
        reader: the class of the data set's reader, or a partial of one.
        loads: whether weights are loaded before the first step.
        package: the folder of this package.
        others: functions, classes and records of them that were registered from outside of this package, such as tasks.
    """
    roots, arguments = [], []
    for definition in (factory, reader, *others):
        more = _unwrapped(definition)
        roots, arguments = [*roots, *more[0]], [*arguments, *more[1]]
    return _digest(model, tuple(roots), tuple(arguments), loads, package)


def modules(model: str, factory: Callable, reader: Callable, loads: bool = False, package: Path = PACKAGE) -> list[str]:
    """Returns the names of the files that `digest` covers."""
    return sorted(_parts(model, (*_unwrapped(factory)[0], *_unwrapped(reader)[0]), loads, package))


def is_foreign(definition: Any) -> bool:
    """Returns whether a function, a class, or part of a tuple or partial of them is defined outside of this package."""
    if isinstance(definition, tuple):
        return any(map(is_foreign, definition))
    while isinstance(definition, functools.partial):
        definition = definition.func
    name = getattr(definition, "__module__", None) or ""
    return callable(definition) and name.partition(".")[0] not in (PACKAGE.name, "jax", "flax", "optax", "builtins", "functools")


def _unwrapped(factory: Any) -> tuple[list[str], list[str]]:
    """Returns the files of the class in a partial and of functions and classes among its arguments, and the arguments as text."""
    roots, arguments = [], []
    if isinstance(factory, tuple):
        parts = [_unwrapped(value) if callable(value) else ([], [repr(value)]) for value in factory]
        return [root for part in parts for root in part[0]], [text for part in parts for text in part[1]]
    while isinstance(factory, functools.partial):
        for name, value in {**dict(enumerate(factory.args)), **factory.keywords}.items():
            named = hasattr(value, "__qualname__")
            # Installed libraries do not count; provenance.json records their versions.
            roots += [path for path in _file_of(value) if not _is_installed(Path(path))] if named else []
            arguments.append(f"{name}={f'{value.__module__}.{value.__qualname__}' if named else repr(value)}")
        factory = factory.func
    return [*_file_of(factory), *roots], sorted(arguments) + _state(factory)


def _state(definition: Any) -> list[str]:
    """Returns what a function or class from outside of this package takes from around it, and its code if it has no file."""
    if not is_foreign(definition):
        return []
    owned = vars(definition).items() if isinstance(definition, type) else [("", definition)]
    state = []
    for name, value in sorted(owned):
        function = inspect.unwrap(value) if callable(value) else value
        if isinstance(function, FunctionType):
            cells = [cell.cell_contents for cell in function.__closure__ or ()]
            state += [f"{name}:{cell!r}" for cell in cells if isinstance(cell, (int, float, str, bytes, tuple, type(None)))]
            if not Path(function.__code__.co_filename).is_file():
                state.append(f"{name}:{_bytecode(function.__code__)}{function.__defaults__!r}")
    return state


def _bytecode(code: CodeType) -> str:
    constants = [_bytecode(value) if isinstance(value, CodeType) else repr(value) for value in code.co_consts]
    return repr((code.co_code.hex(), constants, code.co_names, code.co_varnames))


def _file_of(definition: Any) -> list[str]:
    """Returns the file of a class or function, relative to this package if it is inside; an empty list if there is no file."""
    try:
        path = Path(inspect.getfile(definition)).resolve()
    except (TypeError, OSError):
        return []
    if not path.is_file():
        return []
    return [str(path.relative_to(PACKAGE) if path.is_relative_to(PACKAGE) else path)]


def _is_installed(path: Path) -> bool:
    return not path.is_relative_to(PACKAGE) and bool({"site-packages", "dist-packages"} & {*path.parts})


@functools.cache
def _digest(model: str, roots: tuple[str, ...], arguments: tuple[str, ...], loads: bool, package: Path) -> str:
    if any(Path(root).is_absolute() for root in roots):
        return _compute(model, roots, arguments, loads, package)
    return _cached(model, roots, arguments, loads, package)


def _compute(model: str, roots: tuple[str, ...], arguments: tuple[str, ...], loads: bool, package: Path) -> str:
    state = hashlib.sha256(repr(arguments).encode())
    for name, part in sorted(_parts(model, roots, loads, package).items()):
        state.update(f"\0{name}\0{part.text}".encode())
    return state.hexdigest()[:32]


def _cached(model: str, roots: tuple[str, ...], arguments: tuple[str, ...], loads: bool, package: Path) -> str:
    """Returns `_compute(...)`, cached for the next process: parsing the modules takes ten times as long as hashing them."""
    contents = hashlib.sha256(sys.version.encode())
    for file in sorted(package.rglob("*.py")):
        contents.update(f"\0{file.relative_to(package)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    contents.update(repr((model, roots, arguments, loads)).encode())
    key = contents.hexdigest()
    kept: dict[str, str] = {}
    # An absent or damaged cache file counts as an empty one.
    with contextlib.suppress(StorageError, RuntimeError):
        found = files.read_json(cache_folder() / "source.json")
        kept = found if isinstance(found, dict) else {}
    if re.fullmatch("[0-9a-f]{32}", str(kept.get(key))):
        return kept[key]
    computed = _compute(model, roots, arguments, loads, package)
    # If the cache cannot be written, the digest is computed again next time.
    with contextlib.suppress(StorageError, RuntimeError):
        files.write_json(cache_folder() / "source.json", dict([*kept.items(), (key, computed)][-KEPT:]))
    return computed


def _parts(model: str, roots: tuple[str, ...], loads: bool, package: Path) -> dict[str, _Part]:
    """Returns the contributions to a digest by module name; files of this package are named relative to it."""
    skipped = {package / name for name in (NEUTRAL if loads else NEUTRAL | {LOADS})}
    found: dict[str, _Part] = {}
    waiting = [package / name for name in (*FOLLOWED, *roots)]
    while waiting:
        path = waiting.pop()
        name = _name(path, package)
        if name not in found and path not in skipped:
            found[name] = _part(path, model if name == "models/__init__.py" else "", package)
            waiting += found[name].imports
    return found | {name: _Part(_definitions(package / name, names)) for name, names in DEFINITIONS.items() if name not in found}


def _name(path: Path, package: Path) -> str:
    """Returns the name of a file in a digest, which does not depend on where the package or project is."""
    if path.is_relative_to(package):
        return path.relative_to(package).as_posix()
    return f"outside/{path.relative_to(_import_root(path)).as_posix()}"


@functools.cache
def _part(path: Path, model: str, package: Path) -> _Part:
    tree = ast.parse(path.read_bytes())
    tree = syntax.keep_entries(tree, {"MODELS": model}) if model else tree
    return _Part(syntax.canonical(tree), tuple(_imported(tree, path, package)))


@functools.cache
def _definitions(path: Path, names: tuple[str, ...]) -> str:
    return syntax.canonical(syntax.keep_used(ast.parse(path.read_bytes()), names, TABLES))


def _imported(tree: ast.Module, path: Path, package: Path) -> Iterator[Path]:
    """Yields the files that a module imports, inside functions too, from this package or from its own import folder."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            choices = [[alias.name] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # The imported name may be a module (`from percept_jax.data import feed`) or a name in one (`... .feed import Data`).
            module = _absolute(node, path, package)
            choices = [[f"{module}.{alias.name}", module] for alias in node.names]
        else:
            continue
        for names in choices:
            yield from [file for name in names if (file := _file(name, path, package))][:1]


def _absolute(node: ast.ImportFrom, path: Path, package: Path) -> str:
    """Returns the absolute name of the module in `from MODULE import ...`, with relative imports resolved."""
    if not node.level:
        return node.module or ""
    root = package.parent if path.is_relative_to(package) else _import_root(path)
    above = path.parents[node.level - 1].relative_to(root).parts
    return ".".join([*above, *([node.module] if node.module else [])])


def _file(module: str, importer: Path, package: Path) -> Path | None:
    """Returns the file of a module that `importer` imports; None if the module belongs to another package."""
    first, *parts = module.split(".")
    inside = importer.is_relative_to(package)
    if first == PACKAGE.name:
        root = package if parts and (inside or parts[0] in LIBRARY) else None
    else:
        root, parts = None if inside or _is_installed(importer) else _import_root(importer), [first, *parts]
    if root is None:
        return None
    stem = root.joinpath(*parts)
    return next((path for path in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py") if path.is_file()), None)


def _import_root(path: Path) -> Path:
    """Returns the folder that a file is imported from: the parent of its outermost package."""
    folder = path.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder
