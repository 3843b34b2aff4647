"""Writes a comparison as a table: Markdown, LaTeX and CSV for a paper, plain text for a terminal."""

import csv
import io
import re
import textwrap
from pathlib import Path

from percept_jax import files
from percept_jax.analysis.comparison import Comparison, Row
from percept_jax.metrics import Metric

_UNKNOWN = "—"
# The column of arm names is at least this wide in a terminal, if a name is that long.
_NAME = 30
_TEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$", _UNKNOWN: "---",
    **{c: "\\" + c for c in "$%&_#{}"},
}  # fmt: skip


def write(c: Comparison, folder: Path) -> list[Path]:
    """Writes table.md, table.tex and table.csv. Returns their paths. Raises StorageError if they cannot be written."""
    texts = {"table.md": markdown(c), "table.tex": latex(c), "table.csv": csv_text(c)}
    for name, text in texts.items():
        files.write_bytes(folder / name, text.encode())
    return [folder / name for name in texts]


def markdown(c: Comparison) -> str:
    """Returns Markdown: a heading, the table with the best mean in bold, and the notes."""
    most = best(c)
    lines = [[re.sub(r"([\\|*`<$])", r"\\\1", cell) for cell in cells(row, c.measure)] for row in c.rows]
    for line, row in zip(lines, c.rows, strict=True):
        if row.mean is not None and row.mean == most:
            line[1] = f"**{line[1]}**"
    table = [header(c), ["---"] * 8, *lines]
    notes = [f"- {note}" for note in (_about(c), *c.notes)]
    return "\n".join([f"### {c.name}", "", *("| " + " | ".join(line) + " |" for line in table), "", *notes]) + "\n"


def latex(c: Comparison) -> str:
    """Returns a LaTeX table that needs only the package booktabs, with the best mean in bold and the notes below."""
    most = best(c)
    lines = []
    for row in c.rows:
        arm, *numbers, changed = map(_tex, cells(row, c.measure))
        numbers = [number if number == "---" else number.replace("-", "$-$") for number in numbers]
        if row.mean is not None and row.mean == most:
            numbers[0] = rf"\textbf{{{numbers[0]}}}"
        # The arm stands in braces: a bracket at the start of a line would be an argument of the \\ before it.
        lines.append(" & ".join([f"{{{arm}}}", *numbers, changed]) + r" \\")
    headers = " & ".join(map(_tex, header(c))) + r" \\"
    return "\n".join([
        r"\begin{table}",
        r"\centering\footnotesize",
        rf"\caption{{{_tex(c.name)}. {_tex(_about(c))}}}",
        r"\begin{tabular}{lllllllp{4cm}}",
        r"\toprule", headers, r"\midrule", *lines, r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\raggedright {_tex(note)}" for note in c.notes),
        r"\end{table}",
        "",
    ])  # fmt: skip


def csv_text(c: Comparison) -> str:
    """Returns CSV: a row for each arm, numbers as Python's repr, unknown ones empty, and every flag that differs between arms."""
    seeds = sorted({seed for row in c.rows for seed in row.values})
    flags = dict.fromkeys(flag for row in c.rows for flag in row.changed)
    fields = [field for field in Row._fields if field not in ("arm", "values", "changed", "flags")]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["arm", "metric", *fields, *(f"value_{seed}" for seed in seeds), *(f"flag_{flag}" for flag in flags)])
    for row in c.rows:
        numbers = [*(getattr(row, field) for field in fields), *(row.values.get(seed) for seed in seeds)]
        shown = ["" if number is None else repr(number) for number in numbers]
        table.writerow([row.arm, c.metric, *shown, *(row.flags.get(flag, "") for flag in flags)])
    return text.getvalue()


def plain(c: Comparison, width: int) -> str:
    """Returns the table as text for a terminal of `width` columns; it is wider if the numbers do not fit."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    headers = [name.replace(" ", "\n", 1) for name in header(c)]
    rows = [cells(row, c.measure) for row in c.rows]
    widths = [max(len(line) for cell in column for line in cell.split("\n")) for column in zip(headers, *rows, strict=True)]
    table = Table(box=SIMPLE)
    for name in headers:
        words = name in ("arm", "changed")
        table.add_column(name, no_wrap=not words, overflow="fold", min_width=min(_NAME, widths[0]) if name == "arm" else None)
    for row in rows:
        table.add_row(*row)
    text = io.StringIO()
    # Rich puts three columns between two cells.
    least = min(_NAME, widths[0]) + sum(widths[1:-1]) + min(20, widths[-1]) + 3 * len(headers) + 1
    Console(file=text, width=max(width, least), markup=False, highlight=False, emoji=False).print(table)
    notes = [textwrap.fill(note, width, initial_indent="- ", subsequent_indent="  ") for note in (_about(c), *c.notes)]
    return "\n".join([c.name, *(line.rstrip() for line in text.getvalue().splitlines()), *notes]) + "\n"


def header(c: Comparison) -> list[str]:
    """Returns the names of the columns."""
    return ["arm", f"{c.metric} ± sd", "n", "difference [95 %]", "p (t)", "p (sign-flip)", "seconds", "changed"]


def _about(c: Comparison) -> str:
    return (
        f"Mean ± standard deviation of {c.metric} over n seeds (done/planned). Differences to {c.baseline} are paired by seed, "
        "with 95 % t intervals; p values, of the paired t test and the sign-flip test, are two-sided and Holm-corrected."
    )


def cells(row: Row, metric: Metric) -> list[str]:
    """Returns a row as text, a cell for each name in `header`."""
    mean, difference = _number(row.mean, metric), _number(row.difference, metric, sign="+")
    if row.sd is not None:
        mean += f" ± {_number(row.sd, metric)}"
    if row.low is not None:
        difference += f" [{_number(row.low, metric)}, {_number(row.high, metric)}]"
    wrong = [f"{n} {word}" for n, word in ((row.diverged, "diverged"), (row.failed, "failed"), (row.damaged, "damaged")) if n]
    return [
        row.arm,
        mean,
        f"{len(row.values)}/{row.planned}" + (f" ({', '.join(wrong)})" if wrong else ""),
        difference,
        _p(row.p_t_holm),
        _p(row.p_sign_holm),
        _UNKNOWN if row.seconds is None else f"{row.seconds:.1f}",
        ", ".join(f"{flag}={text}" for flag, text in row.changed.items() if text) or _UNKNOWN,
    ]


def _number(x: float | None, metric: Metric, sign: str = "") -> str:
    return _UNKNOWN if x is None else metric.written(x, sign)


def _p(p: float | None) -> str:
    if p is None:
        return _UNKNOWN
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"


def best(c: Comparison) -> float | None:
    """Returns the best mean; None if there are fewer than two."""
    means = [row.mean for row in c.rows if row.mean is not None]
    return max(means, key=lambda mean: c.measure.sign * mean) if len(means) > 1 else None


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)
