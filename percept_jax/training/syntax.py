"""The canonical text of Python source: without comments, layout, docstrings, messages and help texts, which compute nothing."""

import ast
from collections.abc import Container, Iterable, Mapping
from typing import Any

# Fields that are implied by a node's position, or that only type checkers read.
_IMPLIED = {"ctx", "kind", "type_comment", "type_ignores"}


def canonical(tree: ast.AST) -> str:
    """Returns a syntax tree as text. Two trees have the same text only if they compute the same.

    Each node is written in parentheses with the names of its fields, so that the ends of blocks and argument lists are
    unambiguous. Absent fields are not written, so fields that a later Python adds change nothing unless they are used.
    """
    parts: list[str] = []
    _write(tree, parts)
    return " ".join(parts)


def keep_entries(tree: ast.Module, chosen: Mapping[str, str]) -> ast.Module:
    """Returns a module with only the chosen entry of each table, and without imports and constants that only others use.

    Args:
        tree: the module. A table is a dictionary in an annotated assignment at its top level.
        chosen: maps the name of a table to the key to keep. A table without that key loses all its entries.
    """
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


def keep_used(tree: ast.Module, names: Iterable[str], but: Container[str] = ()) -> ast.Module:
    """Returns a module with only the named functions and classes, and the definitions and constants at its top that they use.

    Imports, and the names in `but`, are left out. Raises LookupError if a name is missing.
    """
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
        elif isinstance(node, ast.Assign):
            found |= dict.fromkeys(_names(node), node)
    used, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        used.add(name)
        read = {part.id for part in ast.walk(found[name]) if isinstance(part, ast.Name)}
        waiting += [other for other in sorted(read & found.keys()) if other not in used and other not in but]
    return ast.Module([node for node in tree.body if any(found[name] is node for name in used)], [])


def _names(node: ast.stmt) -> set[str]:
    """Returns the names that an import or an assignment to plain names defines; an empty set for other statements."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    if isinstance(node, ast.Assign) and all(isinstance(target, ast.Name) for target in node.targets):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    return set()


def _write(node: ast.AST, parts: list[str]) -> None:
    parts.append("(" + type(node).__name__)
    if isinstance(node, ast.Raise):
        # The class of the error counts, its message does not.
        error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        if error:
            _write(error, parts)
        parts.append(")")
        return
    for field in node._fields:
        value = getattr(node, field, None)
        if value is None or field in _IMPLIED:
            continue
        if isinstance(node, ast.JoinedStr):
            # Python 3.12.1 ends some f-strings with an empty string constant, other versions do not.
            value = [child for child in value if not (isinstance(child, ast.Constant) and child.value == "")]
        if isinstance(value, list):
            if value:
                parts.append(field + "[")
                for child in value:
                    _write_child(child, parts)
                parts.append("]")
        else:
            parts.append(field)
            _write_child(value, parts)
    parts.append(")")


def _write_child(child: Any, parts: list[str]) -> None:
    if not isinstance(child, ast.AST):
        parts.append(repr(child))
    elif isinstance(child, ast.AnnAssign):
        if not _is_infra(child):
            _write(_without_help(child), parts)
    elif not _is_docstring(child):
        _write(child, parts)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _knob(node: ast.AnnAssign) -> ast.Call | None:
    """Returns the call in a knob's declaration, `name: type = knob(default, role, group, help)`; None for other statements."""
    call: Any = node.value
    return call if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "knob" and len(call.args) > 1 else None


def _is_infra(node: ast.AnnAssign) -> bool:
    """Whether a statement declares a knob with the role "infra", which does not affect results."""
    call = _knob(node)
    return call is not None and isinstance(call.args[1], ast.Constant) and call.args[1].value == "infra"


def _without_help(node: ast.AnnAssign) -> ast.AnnAssign:
    call = _knob(node)
    if call is None:
        return node
    return ast.AnnAssign(node.target, node.annotation, ast.Call(call.func, call.args[:2], []), node.simple)
