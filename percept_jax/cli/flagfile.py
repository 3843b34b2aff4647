"""Reads flag files and sweep files strictly, and records the place where each setting was given.

absl's own reader resolves nested files against the current directory, takes a line without `--` for an argument, keeps quotes
and comments in values, and does not report which file an error is in. Here both kinds of file follow one rule: a line is empty, a
comment that starts with `#` or `//` in the first column, or a setting `--name=value`; a sweep file also has headers `[name]`.
Only white space at the end of a line is removed.
"""

import re
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from percept_jax.errors import UsageError
from percept_jax.paths import input_file, user_path
from percept_jax.settings import Section, Setting
from percept_jax.validation import UNWRITABLE

COMMAND_LINE = "command line"

# Flags with free text, such as a path, a pattern or a name: text that looks like a comment is part of the value.
FREE_TEXT = {
    *("dataset", "train_split", "validation_split", "test_split", "init_from", "extend", "run_dir", "data_dir"),
    *("mask_classes", "freeze", "lr_scale", "to", "from", "baseline", "flagfile"),
}

# Limits beyond any file that a person writes. Without them, a few files that include each other can expand to 10^7 lines.
LARGEST_FILE, LONGEST_LINE, DEEPEST, MOST_SETTINGS, MOST_BYTES = 2**20, 2**16, 16, 10_000, 2**24


class _Reader:
    """Reads files that may include others, and counts the settings and bytes of one command line."""

    def __init__(self) -> None:
        self._settings = self._bytes = 0

    def include(self, setting: Setting, folder: Path, outer: tuple[Path, ...]) -> Iterator[Setting]:
        """Yields the settings of the file in `--flagfile`, relative to `folder`; `outer` are the files that include it."""
        if not setting.text:
            raise UsageError("needs a path: --flagfile=PATH", setting.name, setting.origin)
        path = folder / user_path(setting.text, setting.name, setting.origin)
        return self.file(path, setting.name, setting.origin, outer)

    def file(self, path: Path, flag: str | None, origin: str, outer: tuple[Path, ...] = ()) -> Iterator[Setting]:
        """Yields the settings of a flag file."""
        for number, line in self.lines(path, flag, origin, outer):
            yield from self.line(line, path, number, outer)

    def line(self, line: str, path: Path, number: int, outer: tuple[Path, ...]) -> Iterator[Setting]:
        """Yields the setting of a line, or the settings of the file that the line includes."""
        setting = _parse(line, f"{path}:{number}")
        self._settings += 1
        if self._settings > MOST_SETTINGS:
            raise UsageError(f"more than {MOST_SETTINGS:,} settings, including those of nested files", where=setting.origin)
        if setting.name == "flagfile":
            yield from self.include(setting, path.parent, (*outer, path.resolve()))
        else:
            yield setting

    def lines(self, path: Path, flag: str | None, origin: str, outer: tuple[Path, ...]) -> Iterator[tuple[int, str]]:
        """Yields the lines that are neither empty nor comments, with their numbers from 1."""
        if input_file(path, flag, origin).resolve() in outer:
            raise UsageError(f"{path} includes itself", flag, origin)
        if len(outer) >= DEEPEST:
            raise UsageError(f"{path}: files are nested more than {DEEPEST} levels deep", flag, origin)
        text = read_text(path, flag, origin)
        self._bytes += len(text)
        if self._bytes > MOST_BYTES:
            raise UsageError(f"{path}: more than {MOST_BYTES // 2**20} MiB, including nested files", flag, origin)
        for number, line in enumerate(text.split("\n"), 1):
            if len(line) > LONGEST_LINE:
                raise UsageError(f"a line of more than {LONGEST_LINE // 2**10} KiB", where=f"{path}:{number}")
            if line.strip() and not line.startswith(("#", "//")):
                yield number, line.rstrip(" \t")


def read_text(path: Path, flag: str | None = None, origin: str | None = None) -> str:
    """Returns a text file of at most LARGEST_FILE bytes, with line ends "\\n". Raises UsageError for any other file."""
    path = input_file(path, flag, origin)
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", flag, origin) from error
    if len(content) > LARGEST_FILE:
        raise UsageError(f"{path}: larger than {LARGEST_FILE // 2**20} MiB, which is too large for a flag file", flag, origin)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UsageError(f"{path}: not a text file in UTF-8", flag, origin)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def expand(args: Sequence[str], booleans: Set[str]) -> tuple[list[str], list[Setting], str]:
    """Returns the positional arguments, the settings in order, and the first .flags or .sweep file (else "").

    Flag files are replaced by their settings.

    Args:
        args: the command line; `--name value` means `--name=value`, except for the flags in `booleans`. A path that ends in
            .flags, or `--flagfile=PATH`, is replaced by the lines of that file; a path that ends in .sweep is kept.
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
        # A negative number is not a flag.
        if not arg.startswith("-") or re.match(r"-[\d.]", arg):
            if arg.endswith((".flags", ".sweep")):
                arg = str(user_path(arg, where=COMMAND_LINE))
                # A file named `...sweep` would give the folder runs/..
                if Path(arg).name.startswith("."):
                    problem = f"{arg}: the file's name also names a folder under runs/, so it must not start with a dot"
                    raise UsageError(problem, where=COMMAND_LINE)
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
    """Returns the sections of a sweep file: the one above the first `[name]`, which may be empty, then the named ones.

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
    if invalid := UNWRITABLE.search(line):
        raise UsageError(f"U+{ord(invalid[0]):04X} is not allowed in a setting", where=origin)
    match = re.fullmatch(r"--(\w[\w.-]*)(=(.*))?", line)
    if not match:
        spaced = re.fullmatch(r"\s*-{0,2}(\w+)\s*[\s=:]\s*(\S+)", line)
        suggestion = f"--{spaced[1]}={spaced[2]}" if spaced else "--name=value"
        raise UsageError(f"{line.strip()!r} is not a setting; write {suggestion}", where=origin)
    name, equals, text = match.groups()
    if equals and text[:1] in ("'", '"'):
        raise UsageError(f"quotes would be part of the value; write --{name}={text.strip(chr(34) + chr(39))}", name, origin)
    if equals and re.search(r"\s(#|//)", text) and name not in FREE_TEXT:
        raise UsageError("a comment here would be part of the value; put it on its own line", name, origin)
    if equals and text != text.lstrip():
        raise UsageError(f"no space after the sign; write --{name}={text.lstrip()}", name, origin)
    return Setting(name, text if equals else None, origin)
