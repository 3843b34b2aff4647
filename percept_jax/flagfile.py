"""Reads flag files: each setting with the place that it comes from, and no line that silently means something else.

absl's own reader resolves nested files against the current directory, takes a line without `--` for an argument, keeps quotes
and comments in values, and cannot say which file a fault is in.
"""

import re
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import NamedTuple

from percept_jax.errors import UsageError

COMMAND_LINE = "command line"


class Setting(NamedTuple):
    """`--name=text`; `text` is None for a bare `--name`. `origin` is "file:line" or "command line"."""

    name: str
    text: str | None
    origin: str


class Section(NamedTuple):
    """The settings below a `[name]` of a sweep file, which stands at `origin`; the first section has no name and no header."""

    name: str
    origin: str
    settings: list[Setting]


def expand(args: Sequence[str], booleans: Set[str]) -> tuple[list[str], list[Setting]]:
    """Arguments of a command to its positional ones, and its settings in order, flag files replaced by what they say.

    Args:
        args: the command line; `--name value` is `--name=value`, except for the flags in `booleans`. A path that ends in
            .flags, and `--flagfile=PATH`, stand for the lines of that file.
        booleans: flags that take no value.

    Raises:
        UsageError: a file cannot be read, includes itself, or has a line that is not a setting.
    """
    positional, settings = [], []
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        if not arg.startswith("-") or re.match(r"-[\d.]", arg):  # a number below 0 is no flag
            if arg.endswith(".flags"):
                settings += _read(Path(arg), COMMAND_LINE, ())
            else:
                positional.append(arg)
            continue
        name, equals, text = arg.lstrip("-").partition("=")
        if not equals and name not in booleans and rest and not rest[0].startswith("--"):
            equals, text = "=", rest.pop(0)
        if name in booleans and not equals and rest and rest[0] in ("true", "false"):
            raise UsageError(f"write --{name}={rest[0]}", where=COMMAND_LINE)
        setting = Setting(name, text if equals else None, COMMAND_LINE)
        settings += _include(setting, Path(), ()) if name == "flagfile" else [setting]
    return positional, settings


def read_sweep(path: Path) -> list[Section]:
    """The sections of a sweep file: what stands above the first `[name]`, if only nothing, then the named ones.

    Its lines are those of a flag file and `[name]`; a comment may also be indented, or end a line. The flag files that it names
    keep their own rules.

    Raises:
        UsageError: a file cannot be read, includes itself, or has a line that is neither a setting nor a header.
    """
    sections = [Section("", str(path), [])]
    for number, line in enumerate(_lines(path, COMMAND_LINE), 1):
        origin = f"{path}:{number}"
        if header := re.fullmatch(r"\[([^\[\]]*)\]\s*(\s(#|//).*)?", line):
            if not header[1].strip():
                raise UsageError("an arm needs a name: [name]", where=origin)
            sections.append(Section(header[1].strip(), origin, []))
        elif line.lstrip().startswith("["):
            raise UsageError("an arm begins with [name], alone on its line and at its start", where=origin)
        elif line.strip() and not line.lstrip().startswith(("#", "//")):
            setting = _parse(re.sub(r"\s+(#|//).*", "", line).rstrip(), origin)
            included = setting.name == "flagfile"
            sections[-1].settings.extend(_include(setting, path.parent, (path.resolve(),)) if included else [setting])
    return sections


def _include(setting: Setting, folder: Path, outer: tuple[Path, ...]) -> Iterator[Setting]:
    if not setting.text:
        raise UsageError("needs a path: --flagfile=PATH", setting.name, setting.origin)
    return _read(folder / setting.text, setting.origin, outer)


def _read(path: Path, origin: str, outer: tuple[Path, ...]) -> Iterator[Setting]:
    if path.resolve() in outer:
        raise UsageError(f"{path} includes itself", where=origin)
    for number, line in enumerate(_lines(path, origin), 1):
        if line.strip() and not line.startswith(("#", "//")):
            setting = _parse(line.rstrip(), f"{path}:{number}")
            if setting.name == "flagfile":
                yield from _include(setting, path.parent, (*outer, path.resolve()))
            else:
                yield setting


def _lines(path: Path, origin: str) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UsageError(f"{path}: {said}", where=origin) from error


def _parse(line: str, origin: str) -> Setting:
    if line.lstrip().startswith(("#", "//")):
        raise UsageError("a comment starts in the first column", where=origin)
    match = re.fullmatch(r"--(\w[\w.-]*)(=(.*))?", line)
    if not match:
        spaced = re.fullmatch(r"\s*-{0,2}(\w+)\s*[\s=:]\s*(\S+)", line)
        meant = f"--{spaced[1]}={spaced[2]}" if spaced else "--name=value"
        raise UsageError(f"{line.strip()!r} is not a setting; write {meant}", where=origin)
    name, equals, text = match.groups()
    if equals and text[:1] in ("'", '"'):
        raise UsageError(f"quotes would be part of the value; write --{name}={text.strip(chr(34) + chr(39))}", name, origin)
    if equals and re.search(r"\s(#|//)", text) and name not in ("dataset", "init_from"):
        raise UsageError("a comment would be part of the value; give it a line of its own", name, origin)
    if equals and text != text.lstrip():
        raise UsageError(f"no space after the sign; write --{name}={text.lstrip()}", name, origin)
    return Setting(name, text if equals else None, origin)
