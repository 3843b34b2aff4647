"""Reads flag files and sweep files: each setting with the place that it comes from, and no line that means something else.

absl's own reader resolves nested files against the current directory, takes a line without `--` for an argument, keeps quotes
and comments in values, and cannot say which file a fault is in. Here one reader serves both kinds of file, with one rule: a line
is empty, a comment, whose first column is `#` or `//`, or a setting `--name=value`; a sweep file has headers `[name]` beside
them. Nothing is ever cut off a line but the white space at its end.
"""

import re
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from percept_jax.errors import UsageError
from percept_jax.paths import input_file, user_path
from percept_jax.settings import Section, Setting
from percept_jax.validation import UNWRITABLE

COMMAND_LINE = "command line"

# Flags whose text is free: a path, a pattern or a name. What looks like a comment at its end is a part of it.
FREE_TEXT = {
    *("dataset", "train_split", "validation_split", "test_split", "init_from", "extend", "run_dir", "data_dir"),
    *("freeze", "lr_scale", "to", "from", "baseline", "flagfile"),
}

# More than a person writes; without limits, a file of a hundred lines that includes others can stand for 10^7.
LARGEST_FILE, LONGEST_LINE, DEEPEST, MOST_SETTINGS, MOST_BYTES = 2**20, 2**16, 16, 10_000, 2**24


class _Reader:
    """Reads files that include others, and counts what one command line comes to."""

    def __init__(self) -> None:
        self._settings = self._bytes = 0

    def include(self, setting: Setting, folder: Path, outer: tuple[Path, ...]) -> Iterator[Setting]:
        """The settings of the file that `--flagfile` names, below `folder`; `outer` are the files that it is read for."""
        if not setting.text:
            raise UsageError("needs a path: --flagfile=PATH", setting.name, setting.origin)
        path = folder / user_path(setting.text, setting.name, setting.origin)
        return self.file(path, setting.name, setting.origin, outer)

    def file(self, path: Path, flag: str | None, origin: str, outer: tuple[Path, ...] = ()) -> Iterator[Setting]:
        """The settings of a flag file."""
        for number, line in self.lines(path, flag, origin, outer):
            yield from self.line(line, path, number, outer)

    def line(self, line: str, path: Path, number: int, outer: tuple[Path, ...]) -> Iterator[Setting]:
        """The setting of a line, or those of the file that it includes."""
        setting = _parse(line, f"{path}:{number}")
        self._settings += 1
        if self._settings > MOST_SETTINGS:
            raise UsageError(f"more than {MOST_SETTINGS:,} settings, with those of the files included", where=setting.origin)
        if setting.name == "flagfile":
            yield from self.include(setting, path.parent, (*outer, path.resolve()))
        else:
            yield setting

    def lines(self, path: Path, flag: str | None, origin: str, outer: tuple[Path, ...]) -> Iterator[tuple[int, str]]:
        """The lines that say something, with their numbers from 1."""
        if input_file(path, flag, origin).resolve() in outer:
            raise UsageError(f"{path} includes itself", flag, origin)
        if len(outer) >= DEEPEST:
            raise UsageError(f"{path}: more than {DEEPEST} files within each other", flag, origin)
        text = read_text(path, flag, origin)
        self._bytes += len(text)
        if self._bytes > MOST_BYTES:
            raise UsageError(f"{path}: more than {MOST_BYTES // 2**20} MiB with the files included", flag, origin)
        for number, line in enumerate(text.split("\n"), 1):
            if len(line) > LONGEST_LINE:
                raise UsageError(f"a line of more than {LONGEST_LINE // 2**10} KiB", where=f"{path}:{number}")
            if line.strip() and not line.startswith(("#", "//")):
                yield number, line.rstrip(" \t")


def read_text(path: Path, flag: str | None = None, origin: str | None = None) -> str:
    """A text file of at most LARGEST_FILE bytes, its line ends all alike. Raises UsageError, of the flag, for any other file."""
    path = input_file(path, flag, origin)
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", flag, origin) from error
    if len(content) > LARGEST_FILE:
        raise UsageError(f"{path}: larger than {LARGEST_FILE // 2**20} MiB, so no file of flags", flag, origin)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UsageError(f"{path}: not a text file in UTF-8", flag, origin)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def expand(args: Sequence[str], booleans: Set[str]) -> tuple[list[str], list[Setting], str]:
    """Arguments of a command to its positional ones, its settings in order, and its first .flags or .sweep file, or "".

    Flag files are replaced by what they say.

    Args:
        args: the command line; `--name value` is `--name=value`, except for the flags in `booleans`. A path that ends in
            .flags, and `--flagfile=PATH`, stand for the lines of that file; one in .sweep stays.
        booleans: flags that take no value.

    Raises:
        UsageError: a file cannot be read, includes itself, or has a line that is not a setting.
    """
    positional, settings, file = [], [], ""
    rest, reader = list(args), _Reader()
    while rest:
        arg = rest.pop(0)
        if not arg:
            raise UsageError("an empty argument", where=COMMAND_LINE)
        # A number below 0 is no flag.
        if not arg.startswith("-") or re.match(r"-[\d.]", arg):
            if arg.endswith((".flags", ".sweep")):
                arg = str(user_path(arg, where=COMMAND_LINE))
                # Of ...sweep it would be runs/..
                if Path(arg).name.startswith("."):
                    raise UsageError(
                        f"{arg}: its name is for a folder under runs/; one that is hidden will not do", where=COMMAND_LINE
                    )
                file = file or arg
            if arg.endswith(".flags"):
                settings += reader.file(Path(arg), None, COMMAND_LINE)
            else:
                positional.append(arg)
            continue
        name, equals, text = arg.lstrip("-").partition("=")
        if not equals and name not in booleans and rest and not rest[0].startswith("--"):
            equals, text = "=", rest.pop(0)
        if name in booleans and not equals and rest and rest[0] in ("true", "false"):
            raise UsageError(f"write --{name}={rest[0]}", where=COMMAND_LINE)
        setting = Setting(name, text if equals else None, COMMAND_LINE)
        settings += reader.include(setting, Path(), ()) if name == "flagfile" else [setting]
    return positional, settings, file


def read_sweep(path: Path) -> list[Section]:
    """The sections of a sweep file: what stands above the first `[name]`, if only nothing, then the named ones.

    Raises:
        UsageError: a file cannot be read, includes itself, or has a line that is neither a setting nor a header.
    """
    sections, reader = [Section("", str(path), [])], _Reader()
    for number, line in reader.lines(path, None, COMMAND_LINE, ()):
        origin = f"{path}:{number}"
        if header := re.fullmatch(r"\[([^\[\]]*)\]", line):
            if not header[1].strip():
                raise UsageError("an arm needs a name: [name]", where=origin)
            sections.append(Section(header[1].strip(), origin, []))
        elif line.lstrip().startswith("["):
            raise UsageError("an arm begins with [name], alone on its line and at its start", where=origin)
        else:
            sections[-1].settings.extend(reader.line(line, path, number, ()))
    return sections


def _parse(line: str, origin: str) -> Setting:
    if line.lstrip().startswith(("#", "//")):
        raise UsageError("a comment starts in the first column", where=origin)
    if odd := UNWRITABLE.search(line):
        raise UsageError(f"U+{ord(odd[0]):04X} is no character for a setting", where=origin)
    match = re.fullmatch(r"--(\w[\w.-]*)(=(.*))?", line)
    if not match:
        spaced = re.fullmatch(r"\s*-{0,2}(\w+)\s*[\s=:]\s*(\S+)", line)
        meant = f"--{spaced[1]}={spaced[2]}" if spaced else "--name=value"
        raise UsageError(f"{line.strip()!r} is not a setting; write {meant}", where=origin)
    name, equals, text = match.groups()
    if equals and text[:1] in ("'", '"'):
        raise UsageError(f"quotes would be part of the value; write --{name}={text.strip(chr(34) + chr(39))}", name, origin)
    if equals and re.search(r"\s(#|//)", text) and name not in FREE_TEXT:
        raise UsageError("a comment would be part of the value; give it a line of its own", name, origin)
    if equals and text != text.lstrip():
        raise UsageError(f"no space after the sign; write --{name}={text.lstrip()}", name, origin)
    return Setting(name, text if equals else None, origin)
