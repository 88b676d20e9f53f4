"""Pictures of a grid: bars beside the published values, or lines over the columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clinbundles.engines.outputs.files import replacing


def plot(plan: dict[str, Any], summary: pd.DataFrame, heading: str, path: Path) -> None:
    """Bars of the measured means (spread over seeds as whiskers) and the published figures as diamonds."""
    row_name, column_name = next(iter(plan["rows"])), next(iter(plan["columns"]))
    tables = list(summary.groupby("table", sort=False))
    rows, columns = list(dict.fromkeys(summary[row_name])), list(dict.fromkeys(summary[column_name]))
    figure, axes = plt.subplots(1, len(tables), figsize=(max(4, 1.2 + len(rows)) * len(tables), 4.4), squeeze=False)
    width = 0.8 / len(columns)
    for axis, (number, table) in zip(axes[0], tables, strict=True):
        for k, column in enumerate(columns):
            part = table[table[column_name] == column].set_index(row_name).reindex(rows)
            place = np.arange(len(rows)) + (k - (len(columns) - 1) / 2) * width
            spread = part["std"].astype(float).fillna(0)
            means, colour = part["mean"].astype(float), _colour(k, len(columns))
            axis.bar(place, means, width * 0.92, yerr=spread, label=column, color=colour, capsize=2)
            axis.plot(
                place,
                part["published"].astype(float),
                "D",
                color="black",
                markersize=3.5,
                label="paper" if k == 0 else None,
            )
        axis.set(title=f"Table {number}: {table['metric'].iloc[0]}", xticks=range(len(rows)))
        if number in plan["tables"]:
            axis.set_ylim(0, 1)
        axis.set_xticklabels(rows, rotation=30, ha="right")
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
    _finish(figure, axes[0][0], heading, path)


def _colour(k: int, n: int) -> Any:
    """Colour k of n that all differ."""
    return f"C{k}" if n <= 10 else matplotlib.colormaps["turbo"]((k + 0.5) / n)


def _finish(figure: Figure, axis: Axes, heading: str, path: Path) -> None:
    """Put heading and legend above the panels, with as many names in a line as fit, and save."""
    title = textwrap.fill(heading, int(14 * figure.get_figwidth()))
    height, (handles, labels) = figure.get_figheight(), axis.get_legend_handles_labels()
    longest = max(map(len, labels), default=1)
    columns = max(1, min(len(labels), int(figure.get_figwidth() / (0.085 * longest + 0.5))))
    lines = math.ceil(len(labels) / columns)
    legend_top = height - 0.2 - 0.14 * (title.count("\n") + 1)
    top = legend_top - 0.22 * lines - 0.1
    extra = max(0.0, 0.75 * height - top)  # the panels keep their height
    figure.set_figheight(height + extra)
    place = (0.5, (legend_top + extra) / (height + extra))
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=place, ncol=columns, frameon=False)
    figure.suptitle(title, fontsize=8, y=1 - 0.08 / (height + extra), va="top")
    figure.tight_layout(rect=(0, 0, 1, (top + extra) / (height + extra)))
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=130)
    plt.close(figure)


def plot_lines(plan: dict[str, Any], summary: pd.DataFrame, heading: str, path: Path) -> None:
    """One line a row: the first metric over the columns, the first cost over the columns, the metric over the cost.

    Whiskers are the spread over seeds; dotted lines in the last panel mark what the first column reached.
    """
    row_name, column_name = next(iter(plan["rows"])), next(iter(plan["columns"]))
    rows, columns = list(dict.fromkeys(summary[row_name])), list(dict.fromkeys(summary[column_name]))
    tables = list(dict.fromkeys(summary["table"]))
    metrics, costs = [t for t in tables if t in plan["tables"]], [t for t in tables if t not in plan["tables"]]
    shown = metrics[:1] + costs[:1]
    both = bool(metrics) and bool(costs) and "ratio" in summary
    width = min(8, 2 + 0.5 * len(columns))
    figure, axes = plt.subplots(1, len(shown) + both, figsize=(width * (len(shown) + both), 5.2), squeeze=False)
    parts = {
        (number, row): summary[(summary["table"] == number) & (summary[row_name] == row)]
        .set_index(column_name)
        .reindex(columns)
        for number in shown
        for row in rows
    }
    for axis, number in zip(axes[0], shown, strict=False):
        for k, row in enumerate(rows):
            part = parts[number, row]
            spread = part["std"].astype(float).fillna(0)
            axis.errorbar(range(len(columns)), part["mean"].astype(float), yerr=spread, fmt="o-", ms=4, capsize=2,
                          color=f"C{k}", label=row)  # fmt: skip
        axis.set(title=_title(summary, number), xticks=range(len(columns)))
        axis.set_xticklabels(columns, rotation=45, ha="right")
        if number not in plan["tables"]:
            axis.set_yscale("log")
    if both:
        _metric_over_cost(axes[0][-1], parts, shown, rows, columns)
        axes[0][-1].set(ylabel=_title(summary, shown[0]), xlabel=f"{_title(summary, shown[1])}, part of {columns[0]}")
    for axis in axes[0]:
        axis.grid(alpha=0.3)
    _finish(figure, axes[0][0], heading, path)


def _title(summary: pd.DataFrame, number: str) -> str:
    return f"{summary.loc[summary['table'] == number, 'metric'].iloc[0]} ({number})"


def _metric_over_cost(
    axis: Axes, parts: dict, shown: Sequence[str], rows: Sequence[str], columns: Sequence[str]
) -> None:
    """A point a row and column, a marker a column: how good it is over the part of the first column's cost it takes."""
    markers = "oDv^<>sp*hXPd8H" * (1 + len(columns) // 15)
    for k, row in enumerate(rows):
        mean, ratio = parts[shown[0], row]["mean"].astype(float), parts[shown[1], row]["ratio"].astype(float)
        axis.axhline(mean.iloc[0], color=f"C{k}", linestyle=":", linewidth=1)
        for marker, column in zip(markers, columns, strict=False):
            axis.plot(ratio[column], mean[column], marker, color=f"C{k}", markersize=6, alpha=0.8)
    for marker, column in zip(markers, columns, strict=False):
        axis.plot([], [], marker, color="grey", label=column)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter("{x:.3g}")
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
