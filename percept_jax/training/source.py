"""The code that decides a result, as a digest: the modules that compute it, see `syntax` for what of their text counts."""

import ast
import contextlib
import functools
import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from percept_jax import files
from percept_jax.errors import StorageError
from percept_jax.paths import cache_folder
from percept_jax.training import syntax

PACKAGE = Path(__file__).resolve().parent.parent

# Where results are computed: these modules, and what they import of this package, directly or not.
FOLLOWED = ("training/loop.py", "data/cache.py")
# And this one, where weights are loaded; else it is passed over.
LOADS = "training/init_from.py"
# What moves bytes and text and computes nothing: files, messages, checks. It is passed over, with what only it imports.
NEUTRAL = {
    *("errors.py", "files.py", "deletion.py", "paths.py", "console.py", "validation.py", "data/bad_records.py"),
    *("training/run_dir.py", "training/reporter.py", "training/stored.py"),
    *("training/checkpoint.py", "training/pack_checkpoints.py"),
}
# Of modules that mostly check and look up, the functions that decide.
FUNCTIONS = {
    "training/preflight.py": ("select", "image_size", "stored_size"),
    "data/registry.py": ("load", "open_reader"),
}
# What a file from outside of this package may be built upon. Whatever else it imports of it shows or starts runs, or is in
# the digest anyway.
BUILT_UPON = ("models", "tasks", "data")

# Digests that are remembered, the latest ones.
KEPT = 100


class _Part(NamedTuple):
    """What a module adds to a digest: its text, and the files that it imports."""

    text: str
    imports: tuple[Path, ...] = ()


def digest(model: str, made: Callable, reader: Callable, loads: bool = False, package: Path = PACKAGE) -> str:
    """Returns a digest of the code that decides the results of a model on a data set.

    Args:
        model: its name in MODELS; other models are not in the digest.
        made: what MODELS has under that name: a class, which may be defined outside of this package, or a partial of one.
        reader: the class of the data set's reader, likewise.
        loads: whether weights are loaded before the first step.
        package: where this package is.
    """
    (roots, arguments), (more, others) = _unwrapped(made), _unwrapped(reader)
    return _digest(model, (*roots, *more), (*arguments, *others), loads, package)


def modules(model: str, made: Callable, reader: Callable, loads: bool = False, package: Path = PACKAGE) -> list[str]:
    """Returns the files that `digest` is of, by the names that they have in it."""
    return sorted(_parts(model, (*_unwrapped(made)[0], *_unwrapped(reader)[0]), loads, package))


def _unwrapped(made: Any) -> tuple[list[str], list[str]]:
    """The files of a class behind partials, and of functions and classes among their arguments; the arguments as text."""
    roots, arguments = [], []
    while isinstance(made, functools.partial):
        for name, value in {**dict(enumerate(made.args)), **made.keywords}.items():
            named = hasattr(value, "__qualname__")
            # An installed library is a version, as provenance.json has it.
            roots += [path for path in _file_of(value) if not _is_installed(Path(path))] if named else []
            arguments.append(f"{name}={f'{value.__module__}.{value.__qualname__}' if named else repr(value)}")
        made = made.func
    return [*_file_of(made), *roots], sorted(arguments)


def _file_of(made: Any) -> list[str]:
    """Where a class or function is defined: relative to this package, where it is in it. Nothing where there is no such file."""
    try:
        path = Path(inspect.getfile(made)).resolve()
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
        return _computed(model, roots, arguments, loads, package)
    return _remembered(model, roots, arguments, loads, package)


def _computed(model: str, roots: tuple[str, ...], arguments: tuple[str, ...], loads: bool, package: Path) -> str:
    state = hashlib.sha256(repr(arguments).encode())
    for name, part in sorted(_parts(model, roots, loads, package).items()):
        state.update(f"\0{name}\0{part.text}".encode())
    return state.hexdigest()[:32]


def _remembered(model: str, roots: tuple[str, ...], arguments: tuple[str, ...], loads: bool, package: Path) -> str:
    """What `_computed` returns, kept for the next process: to parse the modules takes ten times as long as to compare them."""
    now = hashlib.sha256(sys.version.encode())
    for file in sorted(package.rglob("*.py")):
        now.update(f"\0{file.relative_to(package)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    now.update(repr((model, roots, arguments, loads)).encode())
    key = now.hexdigest()
    kept: dict[str, str] = {}
    # A file that is absent or damaged is as good as an empty one.
    with contextlib.suppress(StorageError, RuntimeError):
        found = files.read_json(cache_folder() / "source.json")
        kept = found if isinstance(found, dict) else {}
    if re.fullmatch("[0-9a-f]{32}", str(kept.get(key))):
        return kept[key]
    computed = _computed(model, roots, arguments, loads, package)
    # Where nothing can be written, it is computed again next time.
    with contextlib.suppress(StorageError, RuntimeError):
        files.write_json(cache_folder() / "source.json", dict([*kept.items(), (key, computed)][-KEPT:]))
    return computed


def _parts(model: str, roots: tuple[str, ...], loads: bool, package: Path) -> dict[str, _Part]:
    """What the modules that decide add to a digest, by name; the files of this package are named relative to it."""
    skipped = {package / name for name in (NEUTRAL if loads else NEUTRAL | {LOADS})}
    found: dict[str, _Part] = {}
    waiting = [package / name for name in (*FOLLOWED, *roots)]
    while waiting:
        path = waiting.pop()
        name = _name(path, package)
        if name not in found and path not in skipped:
            found[name] = _part(path, model if name == "models/__init__.py" else "", package)
            waiting += found[name].imports
    return found | {name: _Part(_functions(package / name, names)) for name, names in FUNCTIONS.items()}


def _name(path: Path, package: Path) -> str:
    """The name of a file in a digest, which does not tell where the file lies."""
    if path.is_relative_to(package):
        return path.relative_to(package).as_posix()
    return f"outside/{path.relative_to(_import_root(path)).as_posix()}"


@functools.cache
def _part(path: Path, model: str, package: Path) -> _Part:
    tree = ast.parse(path.read_bytes())
    tree = syntax.chosen_alone(tree, {"MODELS": model}) if model else tree
    return _Part(syntax.canonical(tree), tuple(_imported(tree, path, package)))


@functools.cache
def _functions(path: Path, names: tuple[str, ...]) -> str:
    return syntax.canonical(syntax.functions_alone(ast.parse(path.read_bytes()), names))


def _imported(tree: ast.Module, path: Path, package: Path) -> Iterator[Path]:
    """The files that a module imports, inside of functions too, of this package or of the folder that it is imported from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            choices = [[alias.name] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # `from percept_jax.data import feed` is a module, `from percept_jax.data.feed import Data` a name in one.
            module = _absolute(node, path, package)
            choices = [[f"{module}.{alias.name}", module] for alias in node.names]
        else:
            continue
        for names in choices:
            yield from [file for name in names if (file := _file(name, path, package))][:1]


def _absolute(node: ast.ImportFrom, path: Path, package: Path) -> str:
    """The module that `from MODULE import` names, with the dots of a relative import resolved."""
    if not node.level:
        return node.module or ""
    root = package.parent if path.is_relative_to(package) else _import_root(path)
    above = path.parents[node.level - 1].relative_to(root).parts
    return ".".join([*above, *([node.module] if node.module else [])])


def _file(module: str, importer: Path, package: Path) -> Path | None:
    """The file of a module that a file imports; None where it is of another package."""
    first, *parts = module.split(".")
    inside = importer.is_relative_to(package)
    if first == PACKAGE.name:
        root = package if parts and (inside or parts[0] in BUILT_UPON) else None
    else:
        root, parts = None if inside or _is_installed(importer) else _import_root(importer), [first, *parts]
    if root is None:
        return None
    place = root.joinpath(*parts)
    return next((path for path in (place.with_name(f"{place.name}.py"), place / "__init__.py") if path.is_file()), None)


def _import_root(path: Path) -> Path:
    """The folder that a file is imported from: the one that its outermost package is in."""
    folder = path.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder
