"""Prepares names of classes and arms for a picture: in fonts that have their letters, else as numbers.

Matplotlib draws a letter that its font lacks as a box, and warns on standard error.
"""

import functools
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from percept_jax.errors import in_a_line

# The most columns that a name may take; a full-width letter, such as a Chinese one, takes two.
LONGEST = 24
# A picture of more classes shows only their colors, without their names.
MOST_NAMES = 40
# The most other fonts that are opened, and that are used in one picture.
_MOST_OPENED, _MOST_USED = 300, 4

# Fonts with many letters, which are tried first; and fonts that show a box for every letter, or whose letters are not those of
# Unicode.
_LARGE = ("noto", "cjk", "unicode", "wenquanyi", "droid", "han", "gothic", "ming", "hei", "arabic", "emoji", "symbol", "free")
_UNFIT = ("last resort", "nonunicode", "cmsy", "cmex", "cmmi", "cmtt", "cmr", "cmb", "cmss")


class Labels(NamedTuple):
    """Texts that a picture can show.

    Attributes:
        texts: one for each name.
        families: the names of the font families to write them in.
        numbered: the indices of the texts that are numbers, because the name cannot be shown.
    """

    texts: list[str]
    families: list[str]
    numbered: list[int]

    @property
    def columns(self) -> int:
        """The width of the longest text, in columns."""
        return max((columns(text) for text in self.texts), default=0)


def written(names: Sequence[str], what: str = "", longest: int = LONGEST, first: int = 0) -> Labels:
    """Returns the names in a form that a picture can show.

    Control characters are escaped and long names are shortened. A name with a letter that no font of this machine has is written
    as its number, and so is a name that would look like another one.

    Args:
        names: the names of classes or arms; any text.
        what: the text before a number.
        longest: the most columns that a name may take.
        first: the number of the first name.
    """
    from matplotlib import rcParams

    texts = [_shortened(_printable(name), longest) for name in names]
    own = list(rcParams["font.family"])
    absent = {letter for text in texts for letter in text} - _letters_of(*map(_file_of, own))
    more = _families_with(frozenset(absent)) if absent else {}
    absent -= _letters_of(*more.values())
    alike = Counter(text.strip() for text in texts)
    numbered = [i for i, text in enumerate(texts) if not text.strip() or absent & set(text) or alike[text.strip()] > 1]
    others = {text for i, text in enumerate(texts) if i not in set(numbered)}
    # A class that is named "3" must not be taken for class number 3.
    while any(f"{what}{first + i}" in others for i in numbered):
        what = "#" + what
    for i in numbered:
        texts[i] = f"{what}{first + i}"
    return Labels(texts, [*own, *more], numbered)


def columns(text: str) -> int:
    """Returns the width of a text in columns: a full-width letter takes two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _printable(name: str) -> str:
    """Returns a name in one line, without format characters (Unicode category Cf)."""
    return "".join(letter for letter in in_a_line(name) if unicodedata.category(letter) != "Cf")


def _shortened(text: str, longest: int) -> str:
    if columns(text) <= longest:
        return text
    start, end = text[: longest * 2 // 3], text[-(longest // 3 - 1) :]
    while columns(start) > longest * 2 // 3:
        start = start[:-1]
    while columns(end) > longest // 3 - 1:
        end = end[1:]
    return f"{start}…{end}"


def _file_of(family: str) -> str:
    """Returns the font file of a family, or of matplotlib's default font if there is none."""
    from matplotlib import font_manager

    return font_manager.findfont(font_manager.FontProperties(family=[family]))


@functools.cache
def _letters_of(*paths: str) -> frozenset[str]:
    """Returns the letters of some font files. Damaged fonts and bitmap fonts count as empty."""
    from matplotlib import font_manager

    letters: set[str] = set()
    for path in paths:
        try:
            font = font_manager.get_font(path)
            letters |= set(map(chr, font.get_charmap())) if font.scalable else set()
        except (OSError, RuntimeError, ValueError):
            continue
    return frozenset(letters)


@functools.cache
def _families_with(absent: Collection[str]) -> dict[str, str]:
    """Returns font families of this machine that have some of the absent letters, with their files; the best one comes first."""
    from matplotlib import font_manager

    upright = [entry for entry in font_manager.fontManager.ttflist if (entry.style, entry.weight) == ("normal", 400)]
    files = {entry.name: entry.fname for entry in upright if not any(word in entry.name.lower() for word in _UNFIT)}
    families = sorted(files, key=lambda family: (not any(word in family.lower() for word in _LARGE), family))
    used, rest, found = {}, set(absent), {}
    for family in families[:_MOST_OPENED]:
        found[family] = _letters_of(files[family]) & set(absent)
        if found[family] >= rest:
            break
    while rest and len(used) < _MOST_USED:
        most = max(found, key=lambda family: len(found[family] & rest), default="")
        if not most or not found[most] & rest:
            break
        used[most] = files[most]
        rest -= found[most]
    return used
