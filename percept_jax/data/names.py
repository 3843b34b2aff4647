"""Names of data sets that are files of one's own: KIND:PATH, and KIND:PATH#CHECKSUM where the content is meant, not the place."""

import os
import re
from pathlib import Path

# What the examples are in: a folder of images, or a file of sequences.
KINDS = ("folder", "npz", "tagged", "text")
_PARTS = re.compile(rf"({'|'.join(KINDS)}):(.*?)(?:#([0-9a-f]{{16}}))?", re.DOTALL)


def parts(name: str) -> tuple[str, str, str]:
    """The kind, the path and the checksum in a name; the last is empty where it has none, all are where it is another name."""
    match = _PARTS.fullmatch(name)
    return (match[1], match[2], match[3] or "") if match else ("", "", "")


def plain(name: str) -> str:
    """The name without a checksum."""
    kind, path, _ = parts(name)
    return f"{kind}:{path}" if kind else name


def absolute(path: Path) -> Path:
    """The path from the root, its links as they are; without `..`, unless that leads somewhere else behind a link."""
    straight = os.path.abspath(path)
    return Path(straight) if os.path.realpath(straight) == os.path.realpath(path) else path.absolute()
