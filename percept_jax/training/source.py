"""The code that decides a result, as a digest of syntax trees: comments, docstrings and messages are not in it."""

import ast
import functools
import hashlib
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent.parent

# Where results are computed: these modules, and what they import of this package, directly or not.
FOLLOWED = (
    "training/step.py",
    "training/evaluation.py",
    "data/preprocess.py",
    "data/cache.py",
    "data/sampler.py",
    "tasks/__init__.py",
)
# And these, where weights are loaded.
LOADS = "training/init_from.py"
# What decides, but imports much that does not: the loop's order, the choice of the best step, what is logged.
ALONE = ("training/pack.py", "training/loop.py", "training/trial.py")
# What moves bytes and text and computes nothing: files, messages, checks, and the table of data sets.
NEUTRAL = {
    *("errors.py", "console.py", "paths.py", "files.py", "deletion.py", "validation.py", "records.py"),
    *("data/registry.py", "data/bad_records.py", "training/stored.py", "training/checkpoint.py", "training/identity.py"),
}


def digest(model: str, model_class: type, reader_class: type, loads: bool = False, package: Path = PACKAGE) -> str:
    """Returns a digest of the code that decides the results of a model on a data set.

    Args:
        model: its name in MODELS; other models are not in the digest.
        model_class: of its module, which may be defined outside of this package.
        reader_class: of the data set's reader, likewise.
        loads: whether weights are loaded before the first step.
        package: where this package is.
    """
    return _digest(model, _roots(model_class, reader_class, loads), package)


def modules(model: str, model_class: type, reader_class: type, loads: bool = False, package: Path = PACKAGE) -> list[str]:
    """Returns the files that `digest` is of, relative to the package."""
    return sorted(_modules(model, _roots(model_class, reader_class, loads), package))


def _roots(model_class: type, reader_class: type, loads: bool) -> tuple[str, ...]:
    own = (_file_of(model_class), _file_of(reader_class))
    return (*FOLLOWED, *(path for path in own if path), *([LOADS] if loads else []))


def _file_of(cls: type) -> str | None:
    """Where a class is defined: relative to this package, where it is in it. None where there is no such file."""
    try:
        path = Path(inspect.getfile(cls))
    except (TypeError, OSError):
        return None
    return str(path.relative_to(PACKAGE)) if path.is_relative_to(PACKAGE) else str(path)


@functools.cache
def _digest(model: str, roots: tuple[str, ...], package: Path) -> str:
    state = hashlib.sha256()
    for name, tree in sorted(_modules(model, roots, package).items()):
        parts: list[str] = []
        _write(tree, parts)
        state.update(f"\0{name}\0".encode() + "\0".join(parts).encode())
    return state.hexdigest()[:32]


def _modules(model: str, roots: tuple[str, ...], package: Path) -> dict[str, ast.Module]:
    found: dict[str, ast.Module] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in found or name in NEUTRAL:
            continue
        found[name] = _pruned(_parsed(package / name), {"MODELS": model})
        if not Path(name).is_absolute():
            waiting += _imported(found[name], package)
    return found | {name: _parsed(package / name) for name in ALONE}


@functools.cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


def _imported(tree: ast.Module, package: Path) -> Iterator[str]:
    """The files of this package that a module imports, inside of functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from percept_jax.data import feed` is a module, `from percept_jax.data.feed import Data` a name in one.
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name for name in inside if _file(name, package)] or [node.module]
        else:
            continue
        yield from (file for name in names if (file := _file(name, package)))


def _file(module: str, package: Path) -> str | None:
    first, *parts = module.split(".")
    if first != PACKAGE.name or not parts:
        return None
    for name in ("/".join(parts) + ".py", "/".join([*parts, "__init__.py"])):
        if (package / name).is_file():
            return name
    return None


def _pruned(tree: ast.Module, chosen: Mapping[str, str]) -> ast.Module:
    """A module with the chosen entries of its tables alone, and without imports and constants that only others use."""
    tables = {node.target.id: node for node in tree.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    if not chosen.keys() & tables.keys():
        return tree
    body: list[ast.stmt] = []
    for node in tree.body:
        for table, key in chosen.items():
            if node is tables.get(table) and isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict):
                entries = zip(node.value.keys, node.value.values, strict=True)
                kept = [value for name, value in entries if isinstance(name, ast.Constant) and name.value == key]
                body += [ast.Expr(value) for value in kept]
                break
        else:
            body.append(node)
    while True:
        used = {
            name.id for node in body for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Load)
        }
        kept_body = [node for node in body if not _names(node) or _names(node) & used]
        if len(kept_body) == len(body):
            return ast.Module(body, [])
        body = kept_body


def _names(node: ast.stmt) -> set[str]:
    """The names that an import or the assignment of a constant makes; none of other statements."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    if isinstance(node, ast.Assign) and all(isinstance(target, ast.Name) for target in node.targets):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    return set()


def _write(node: ast.AST, parts: list[str]) -> None:
    """Writes down a syntax tree, without what only a person reads: docstrings, messages, the help of a knob."""
    parts.append(type(node).__name__)
    if isinstance(node, ast.Raise):
        # Its message may change; which error it is may not.
        parts += [name.id for name in ast.walk(node) if isinstance(name, ast.Name)][:1]
        return
    for field in node._fields:
        value = getattr(node, field, None)
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                if not _is_docstring(child) and not _is_infra(child):
                    _write(_without_help(child), parts)
            elif child is not None:
                parts.append(repr(child))


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _knob(node: ast.AST) -> ast.Call | None:
    """The call that declares a knob, `name: type = knob(default, role, group, help)`; None for other statements."""
    call: Any = node.value if isinstance(node, ast.AnnAssign) else None
    return call if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "knob" else None


def _is_infra(node: ast.AST) -> bool:
    """Whether a statement declares a knob that does not decide a result."""
    call = _knob(node)
    return call is not None and isinstance(call.args[1], ast.Constant) and call.args[1].value == "infra"


def _without_help(node: ast.AST) -> ast.AST:
    call = _knob(node)
    if call is None or not isinstance(node, ast.AnnAssign):
        return node
    return ast.AnnAssign(node.target, node.annotation, ast.Call(call.func, call.args[:2], []), node.simple)
