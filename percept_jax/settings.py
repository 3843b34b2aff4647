"""Setting and Section: the parsed lines of flag files, sweep files and command lines."""

from typing import NamedTuple


class Setting(NamedTuple):
    """`--name=text`; `text` is None for a bare `--name`. `origin` is "file:line" or "command line"."""

    name: str
    text: str | None
    origin: str


class Section(NamedTuple):
    """The settings below a `[name]` in a sweep file; `origin` is the place of the header. The first section has neither."""

    name: str
    origin: str
    settings: list[Setting]
