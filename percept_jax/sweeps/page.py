"""report.html: one file that shows all of a comparison, with nothing to fetch and nothing to run."""

import base64
import html
from collections.abc import Sequence
from typing import NamedTuple

from percept_jax.sweeps import tables
from percept_jax.sweeps.comparison import Comparison

_CSS = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #8886; }
th:first-child, td:last-child, th:last-child { text-align: left; }
tbody th { font-weight: normal; }
.baseline { background: #8883; }
figure { margin: 2rem 0; break-inside: avoid; }
img { max-width: 100%; background: white; }
@media print { body { font-size: 9pt; max-width: none; margin: 0; } .wide { overflow: visible; }
  th, td { white-space: normal; padding: .15rem .4rem; } tr { break-inside: avoid; } }
"""


class Picture(NamedTuple):
    """A picture of a report: its file's name, what it shows in a sentence, what stands below it, and the PNG file's bytes."""

    file: str
    alt: str
    caption: str
    content: bytes


def written(comparison: Comparison, pictures: Sequence[Picture]) -> str:
    """Returns report.html, in which the pictures are embedded."""
    name, metric = html.escape(comparison.name), html.escape(comparison.metric)
    notes = "".join(f"<li>{html.escape(note)}</li>\n" for note in comparison.notes)
    return "\n".join(
        (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{name}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<h1>{name}</h1>",
            f"<p>Metric: <code>{metric}</code>. Baseline: <code>{html.escape(comparison.baseline)}</code> (shaded).",
            "Best mean in bold. Differences are to the baseline, paired by seed, with a 95 % t interval.</p>",
            _table(comparison),
            f"<h2>Notes</h2>\n<ul>\n{notes}</ul>" if notes else "",
            *(_figure_html(picture) for picture in pictures),
            "</body>\n</html>\n",
        )
    )


def _table(comparison: Comparison) -> str:
    lines = [
        '<div class="wide" role="region" aria-label="results" tabindex="0">\n<table>\n<thead><tr>',
        *(f'<th scope="col">{html.escape(name)}</th>' for name in tables.header(comparison)),
        "</tr></thead>\n<tbody>",
    ]
    for row in comparison.rows:
        arm, mean, *cells = map(html.escape, tables.cells(row, comparison.measure))
        if row.mean is not None and row.mean == tables.best(comparison):
            mean = f"<strong>{mean}</strong>"
        lines.append('<tr class="baseline">' if row.arm == comparison.baseline else "<tr>")
        lines.append(f'<th scope="row">{arm}</th>' + "".join(f"<td>{cell}</td>" for cell in (mean, *cells)) + "</tr>")
    return "\n".join([*lines, "</tbody>\n</table>\n</div>"])


def _figure_html(picture: Picture) -> str:
    image = f'<img src="data:image/png;base64,{base64.b64encode(picture.content).decode()}" alt="{html.escape(picture.alt)}">'
    return f"<figure>\n{image}\n<figcaption>{html.escape(picture.caption)}</figcaption>\n</figure>"
