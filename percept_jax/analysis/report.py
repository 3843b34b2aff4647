"""Draws the pictures of a comparison, and writes the report that shows them."""

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from percept_jax import files, metrics
from percept_jax.analysis import page
from percept_jax.analysis.comparison import Arm, Comparison, Row
from percept_jax.analysis.page import Picture
from percept_jax.errors import StorageError
from percept_jax.plots import labels
from percept_jax.plots.figure import new_figure, png
from percept_jax.plots.labels import Labels
from percept_jax.plots.run import read_log

# The colors of Okabe and Ito (2008), which color-blind people can tell apart; without yellow, which is faint on white.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("-", "--", ":", "-.")


def write(comparison: Comparison, arms: Sequence[Arm], folder: Path) -> list[Path]:
    """Draws the pictures of a comparison and writes report.html, in which they are embedded.

    The same comparison gives the same bytes. curves.png is left out if no trial has logged anything. A trial whose metrics.jsonl
    is damaged is left out of its arm's curve, and the report says so.

    Args:
        comparison: the table; it has a row for each of `arms`, by name.
        arms: the arms with their trials, whose metrics.jsonl are read.
        folder: the folder to write to; it is created if necessary.

    Returns:
        The paths of the files, report.html last.

    Raises:
        StorageError: a file cannot be written.
    """
    curves, faults = _curves(comparison, arms)
    if faults:
        note = f"{len(faults)} {'trial is' if len(faults) == 1 else 'trials are'} missing from the learning curves: {faults[0]}"
        comparison = comparison._replace(notes=[*comparison.notes, note])
    pictures = [*curves, *(_metric(comparison, arms, flag) for flag in swept_numbers(arms))]
    contents = {picture.file: picture.content for picture in pictures}
    contents["report.html"] = page.html_text(comparison, pictures).encode()
    for name, content in contents.items():
        files.write_bytes(folder / name, content)
    return [folder / name for name in contents]


def curve(trials: Iterable[Sequence[Mapping[str, Any]]], split: str, number: str) -> np.ndarray:
    """Returns a learning curve over seeds.

    Args:
        trials: the lines of each trial's metrics.jsonl; they may end at different steps.
        split: the split whose lines are taken.
        number: the name of the number in these lines. Values that are not finite are left out.

    Returns:
        Float `[4, steps]`: the steps in order; the mean, least and greatest value among the trials that have the step.
    """
    values: dict[int, list[float]] = {}
    for lines in trials:
        found = {line["step"]: metrics.as_number(line.get(number)) for line in lines if line["split"] == split}
        for step, value in found.items():
            if value is not None:
                values.setdefault(step, []).append(value)
    points = [(step, np.mean(values[step]), min(values[step]), max(values[step])) for step in sorted(values)]
    return np.array(points, float).reshape(-1, 4).T


def swept_numbers(arms: Sequence[Arm]) -> list[str]:
    """Returns the flags that get a picture: finite numbers in all arms, with 3 values or more (2, if no other flag differs)."""
    differing = _differing(arms)
    least = 2 if len(differing) == 1 else 3
    values = {flag: [_number(arm.flags.get(flag)) for arm in arms] for flag in differing}
    return [flag for flag in differing if np.isfinite(values[flag]).all() and len(set(values[flag])) >= least]


def is_log(values: Iterable[float]) -> bool:
    """Returns whether values suit a log axis.

    They do if they are above 0, span a factor of 10 or more, and have ratios that are more even than their differences.
    """
    ordered = np.unique(np.array([*values], float))
    if not ordered.size or ordered[0] <= 0 or ordered[-1] < 10 * ordered[0]:
        return False
    ratios, differences = np.diff(np.log(ordered)), np.diff(ordered)
    return bool(ratios.std() / ratios.mean() <= differences.std() / differences.mean())


def _curves(comparison: Comparison, arms: Sequence[Arm]) -> tuple[list[Picture], list[str]]:
    """Returns curves.png, and the faults of trials that are left out of it.

    It shows the metric on the validation split, and the training loss, against the step. There is no picture if no trial has
    logged anything.
    """
    drawn = _shown(comparison)
    shown = [arm for arm in arms if arm.name in drawn]
    lines, faults = _logged(shown)
    number = comparison.metric.rpartition("/")[2]
    if not any(curve(trials, "validation", number).size for trials in lines):
        number = "loss"
    if not any(any(trials) for trials in lines):
        return [], faults
    title = "mean over seeds; bands: lowest to highest seed"
    if len(shown) < len(arms):
        title += f";\nof {len(arms)} arms the 12 best, the 4 worst and the baseline"
    names = [row.arm for row in comparison.rows]
    texts = _written(names, "arm ")
    figure = new_figure(9.2 + 0.065 * texts.columns, 4 if len(shown) < 20 else 4.8)
    figure.suptitle(title, fontsize=10)
    styles = _styles([arm.name for arm in shown], comparison.baseline)
    shown_names = dict(zip(names, texts.texts, strict=True))
    for axes, (split, of) in zip(figure.subplots(1, 2), (("validation", number), ("train", "loss")), strict=True):
        axes.set(xlabel="step", ylabel=f"{'training' if split == 'train' else split} {of}")
        curves = {arm.name: curve(trials, split, of) for arm, trials in zip(shown, lines, strict=True)}
        bounded = of == comparison.measure.name and comparison.measure.higher_is_better
        _draw_curves(axes, curves, styles, of, shown_names, bounded)
    _legend(figure, figure.axes[0], texts, title="arm")
    what = f"Learning curves: validation {number} and training loss against the step"
    caption = f"{what}; {title}.".replace("\n", " ")
    if texts.numbered:
        caption += " Arms whose names cannot be drawn, or look alike, are shown by their row numbers in the table."
    return [Picture("curves.png", f"{what}, one line for each arm.", caption, png(figure, 120))], faults


def _logged(arms: Sequence[Arm]) -> tuple[list[list[list[dict[str, Any]]]], list[str]]:
    """Returns the lines that the trials of each arm have logged, and the faults of trials whose files are damaged."""
    lines, faults = [], []
    for arm in arms:
        lines.append([])
        for outcome in arm.outcomes:
            try:
                # A trial that has not started has no log, which is not a fault.
                if outcome.result or (outcome.path / "metrics.jsonl").exists():
                    lines[-1].append(read_log(outcome.path))
            except StorageError as error:
                faults.append(str(error))
    return lines, faults


def _draw_curves(
    axes: Any,
    curves: Mapping[str, np.ndarray],
    styles: Mapping[Any, Any],
    number: str,
    shown_names: Mapping[str, str],
    bounded: bool,
) -> None:
    """Draws the learning curves of a number, by arm.

    A metric such as accuracy is `bounded`. Other numbers may be huge in one arm, which would flatten the curves of all other
    arms, so the axis then ends at ten times the median first value.
    """
    for name, (steps, mean, low, high) in curves.items():
        # A line of one point cannot be seen without a marker.
        marker = "." if len(steps) == 1 else ""
        axes.plot(steps, mean, label=shown_names[name], marker=marker, **styles[name])
        axes.fill_between(steps, low, high, alpha=0.15 if len(curves) <= 10 else 0.07, linewidth=0, color=styles[name]["color"])
    axes.grid(alpha=0.3)
    if number == "loss" and all((low > 0).all() for _, _, low, _ in curves.values()):
        axes.set_yscale("log")
    top = 10 * statistics.median([mean[0] for _, mean, _, _ in curves.values() if mean.size] or [0])
    if not bounded and 0 < top < axes.get_ylim()[1]:
        axes.set_ylim(top=top)
        axes.set_ylabel(f"{axes.get_ylabel()} (greater values are cut off)")


def _metric(comparison: Comparison, arms: Sequence[Arm], flag: str) -> Picture:
    """Returns metric_<flag>.png: the mean against one flag, with a line for each combination of the other flags that differ."""
    rows = {row.arm: row for row in comparison.rows}
    others = [other for other in _differing(arms) if other != flag]
    lines: dict[str, list[tuple[float, Row]]] = {}
    for arm in arms:
        name = " ".join(f"{other}={arm.flags[other]}" for other in others if other in arm.flags)
        lines.setdefault(name, []).append((_number(arm.flags[flag]), rows[arm.name]))
    longest = sorted(lines, key=lambda name: -len(lines[name]))[:12]
    most = [name for name in lines if name in longest]
    texts = _written(most, "combination ")
    figure = new_figure(6 + 0.065 * texts.columns, 4.2)
    axes, styles = figure.subplots(), _styles(most)
    for i, name in enumerate(most):
        points = sorted(lines[name], key=lambda point: point[0])
        known = [(x, row.mean, math.nan if row.sd is None else row.sd) for x, row in points if row.mean is not None]
        x, mean, sd = zip(*known, strict=True) if known else ((), (), ())
        axes.errorbar(
            x, mean, sd, label=texts.texts[i] if others else "", marker="os"[i // 6], capsize=3, **styles[name], markersize=4
        )
        lost = [x for x, row in points if _is_lost(row)]
        # Each line has a row of crosses, at a fraction of the height of the axes.
        low = [0.03 + 0.03 * i] * len(lost)
        axes.scatter(lost, low, marker="x", color=styles[name]["color"], transform=axes.get_xaxis_transform())
    _scale(axes, {x for points in lines.values() for x, _ in points})
    counts = {len(row.values) for row in rows.values() if row.mean is not None} or {0}
    title = f"mean ± sd over seeds, n = {' to '.join(map(str, sorted({min(counts), max(counts)})))}"
    if len(most) < len(lines):
        title += f";\n{len(most)} of {len(lines)} combinations of the other flags"
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.set_xlabel(flag, parse_math=False)
    axes.set_ylabel(comparison.metric, parse_math=False)
    axes.grid(alpha=0.3)
    if crosses := any(_is_lost(row) for name in most for _, row in lines[name]):
        axes.scatter([], [], marker="x", color="gray", label="diverged")
    if crosses or others:
        _legend(figure, axes, texts)
    what = f"{comparison.metric} against {flag}"
    caption = f"{what}: {title}." + (" Crosses: all trials diverged." if crosses else "")
    return Picture(f"metric_{re.sub('[^a-z0-9_]', '_', flag)}.png", f"{what}.", caption, png(figure, 120))


def _is_lost(row: Row) -> bool:
    return row.mean is None and 0 < row.planned == row.diverged


def _scale(axes: Any, values: Iterable[float]) -> None:
    """Makes the x axis logarithmic if the values suit it, with ticks at the values if there is room.

    If one of the values is 0, the axis is linear from 0 to the next value.
    """
    ordered = np.unique(np.array([*values]))
    positive = ordered[ordered > 0]
    if is_log(positive) and ordered[0] >= 0:
        axes.set_xscale("log")
        if ordered[0] == 0:
            axes.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
        gaps = np.diff(np.log(positive))
        if gaps.min() > 0.09 * gaps.sum():
            axes.set_xticks([], minor=True)
            axes.set_xticks(ordered, [f"{value:g}" for value in ordered])


def _ranked(comparison: Comparison) -> list[Row]:
    """Returns the rows that have a mean, the best first."""
    sign = comparison.measure.sign
    return sorted((row for row in comparison.rows if row.mean is not None), key=lambda row: -sign * (row.mean or 0))


def _shown(comparison: Comparison) -> set[str]:
    """Returns the arms that get a learning curve: all, or of more than 24 the 12 best, the 4 worst and the baseline."""
    if len(comparison.rows) <= 24:
        return {row.arm for row in comparison.rows}
    ranked = _ranked(comparison)
    unknown = [row for row in comparison.rows if row.mean is None]
    return {row.arm for row in [*(ranked + unknown)[:12], *ranked[-4:]]} | {comparison.baseline}


def _differing(arms: Sequence[Arm]) -> list[str]:
    flags = dict.fromkeys(flag for arm in arms for flag in arm.flags)
    return [flag for flag in flags if len({arm.flags.get(flag) for arm in arms}) > 1]


def _number(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        return math.nan


def _styles(names: Iterable[str], baseline: str | None = None) -> dict[str | None, dict[str, str]]:
    """Returns a color and a dash pattern for each line, all different for up to 24; the baseline's is black."""
    rest = [name for name in names if name != baseline]
    styles = {name: {"color": _COLORS[i % 6], "linestyle": _DASHES[i // 6 % 4]} for i, name in enumerate(rest)}
    return styles | {baseline: {"color": "black", "linestyle": "-"}}


def _written(names: Sequence[str], what: str) -> Labels:
    """Returns the names of lines for a legend; those that cannot be drawn are counted from 1."""
    found = labels.written(names, what, longest=48, first=1)
    # Matplotlib leaves a label that starts with "_" out of the legend.
    return found._replace(texts=[" " + text if text.startswith("_") else text for text in found.texts])


def _legend(figure: Any, axes: Any, texts: Labels, title: str | None = None) -> None:
    """Puts a legend to the right of the axes, since inside it would hide lines."""
    handles, names = axes.get_legend_handles_labels()
    font = {"family": texts.families, "size": 8 if len(names) <= 10 else 7}
    legend = figure.legend(handles, names, loc="outside right upper", prop=font, title=title)
    for text in legend.get_texts():
        # A $ in a name must not start a formula.
        text.set_parse_math(False)
