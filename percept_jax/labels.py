"""Names of classes and arms as a picture can write them: in fonts that have their letters, else as numbers.

Matplotlib draws a letter that its font lacks as a box, and warns on standard error.
"""

import functools
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

LONGEST = 24  # columns of a name; a wide letter, such as a Chinese one, takes two
_LOOKED_AT, _TAKEN = 300, 4  # other fonts that are opened, and that one picture takes, at most

# Fonts with many letters, which are looked at first; and those that have a box for each letter there is, or other signs than
# Unicode means.
_LARGE = ("noto", "cjk", "unicode", "wenquanyi", "droid", "han", "gothic", "ming", "hei", "arabic", "emoji", "symbol", "free")
_UNFIT = ("last resort", "nonunicode", "cmsy", "cmex", "cmmi", "cmtt", "cmr", "cmb", "cmss")


class Labels(NamedTuple):
    """Texts of a picture, and the names of the font families to write them in; `numbered` are the places of numbers in it."""

    texts: list[str]
    families: list[str]
    numbered: list[int]

    @property
    def columns(self) -> int:
        """Of the longest text."""
        return max((columns(text) for text in self.texts), default=0)


def written(names: Sequence[str], what: str = "", longest: int = LONGEST, first: int = 0) -> Labels:
    """Returns the names as a picture can write them.

    Control characters are escaped, long names shortened. A name with a letter that no font of this machine has is written as
    its number, and so is one that would look like another.

    Args:
        names: of classes or arms; any text.
        what: stands before a number.
        longest: columns that a name may take.
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
    while any(f"{what}{first + i}" in others for i in numbered):  # a class that is called 3 is not class 3
        what = "#" + what
    for i in numbered:
        texts[i] = f"{what}{first + i}"
    return Labels(texts, [*own, *more], numbered)


def columns(text: str) -> int:
    """Returns how much room a text takes, in narrow letters."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def in_a_line(text: str) -> str:
    """Returns a text in which what would break a line, or cannot be printed at all, is escaped."""
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") else letter
        for letter in text
    )


def _printable(name: str) -> str:
    """A name in one line, without the letters that only say how to set the others."""
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
    """The font file that a family's name stands for; matplotlib's own font, where there is none."""
    from matplotlib import font_manager

    return font_manager.findfont(font_manager.FontProperties(family=[family]))


@functools.cache
def _letters_of(*paths: str) -> frozenset[str]:
    """The letters that font files have; none of one that is damaged, or cannot be drawn in any size."""
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
    """Families of this machine, with their files, that have letters which the usual ones lack; what has most comes first."""
    from matplotlib import font_manager

    upright = [entry for entry in font_manager.fontManager.ttflist if (entry.style, entry.weight) == ("normal", 400)]
    files = {entry.name: entry.fname for entry in upright if not any(word in entry.name.lower() for word in _UNFIT)}
    families = sorted(files, key=lambda family: (not any(word in family.lower() for word in _LARGE), family))
    taken, rest, found = {}, set(absent), {}
    for family in families[:_LOOKED_AT]:
        found[family] = _letters_of(files[family]) & set(absent)
        if found[family] >= rest:
            break
    while rest and len(taken) < _TAKEN:
        most = max(found, key=lambda family: len(found[family] & rest), default="")
        if not most or not found[most] & rest:
            break
        taken[most] = files[most]
        rest -= found[most]
    return taken
