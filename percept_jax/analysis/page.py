"""Writes report.html as text: a whole comparison in one file, without scripts, links or other files."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import NamedTuple

from percept_jax.analysis import tables
from percept_jax.analysis.comparison import Comparison

_TEMPLATE = Path(__file__).with_name("report.html.template")


class Picture(NamedTuple):
    """A picture of a report.

    Attributes:
        file: the name of its file.
        alt: what it shows, in a sentence.
        caption: the text below it.
        content: the bytes of the PNG file.
    """

    file: str
    alt: str
    caption: str
    content: bytes


def html_text(comparison: Comparison, pictures: Sequence[Picture]) -> str:
    """Returns report.html, with the pictures embedded."""
    notes = "".join(f"<li>{html.escape(note)}</li>\n" for note in comparison.notes)
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        name=html.escape(comparison.name),
        metric=html.escape(comparison.metric),
        baseline=html.escape(comparison.baseline),
        header="\n".join(f'<th scope="col">{html.escape(name)}</th>' for name in tables.header(comparison)),
        rows="\n".join(_rows(comparison)),
        notes=f"<h2>Notes</h2>\n<ul>\n{notes}</ul>" if notes else "",
        pictures="\n".join(map(_figure, pictures)),
    )


def _rows(comparison: Comparison) -> list[str]:
    lines = []
    for row in comparison.rows:
        arm, mean, *cells = map(html.escape, tables.cells(row, comparison.measure))
        if row.mean is not None and row.mean == tables.best(comparison):
            mean = f"<strong>{mean}</strong>"
        lines.append('<tr class="baseline">' if row.arm == comparison.baseline else "<tr>")
        lines.append(f'<th scope="row">{arm}</th>' + "".join(f"<td>{cell}</td>" for cell in (mean, *cells)) + "</tr>")
    return lines


def _figure(picture: Picture) -> str:
    image = f'<img src="data:image/png;base64,{base64.b64encode(picture.content).decode()}" alt="{html.escape(picture.alt)}">'
    return f"<figure>\n{image}\n<figcaption>{html.escape(picture.caption)}</figcaption>\n</figure>"
