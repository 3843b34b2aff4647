"""Settings as flag files, sweep files and command lines give them."""

from typing import NamedTuple


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
