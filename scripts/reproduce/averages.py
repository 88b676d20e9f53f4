"""Averages over the rows of a grid, as the gaze paper's figure 5 has them over its ten networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from clinbundles.engines.outputs.files import replacing


def averaged_figures(plan: Mapping[str, Any], numbers: Sequence[str], columns: Sequence[str]) -> dict[str, Any]:
    """Choose those of the plan's averages whose tables and columns are there, by the figure's number."""
    return {
        number: figure
        for number, figure in plan.get("averages", {}).items()
        if set(figure["tables"]) <= set(numbers) and set(figure["columns"]) <= set(columns)
    }


def average(plan: Mapping[str, Any], figure: Mapping[str, Any], summary: pd.DataFrame) -> pd.DataFrame:
    """Average each metric over the rows that have every column of the figure.

    Args:
        plan: the content of reproduce.json.
        figure: with ``tables`` and ``columns``, one of the plan's averages.
        summary: what :func:`.tables.summarise` returned.

    Returns:
        a line a metric and column: mean and std (between rows) of what was measured, ``published`` and
        ``published_std`` of the published values of all rows that have them, and ``rows``, the names averaged over.
    """
    row_name, column_name = next(iter(plan["rows"])), next(iter(plan["columns"]))
    every, columns = list(plan["rows"][row_name]), list(plan["columns"][column_name])
    lines = []
    for number in figure["tables"]:
        table = summary[summary["table"] == number]
        means = table.pivot(index=row_name, columns=column_name, values="mean").reindex(columns=figure["columns"])
        complete = means.dropna()
        published = pd.DataFrame(plan["tables"][number].get("published", {}), index=columns, dtype=float).T
        of_paper = published.reindex(index=every, columns=figure["columns"]).dropna()
        for column in figure["columns"]:
            lines.append(
                {
                    "metric": plan["tables"][number]["title"],
                    column_name: column,
                    "mean": complete[column].mean(),
                    "std": complete[column].std(ddof=1),
                    "published": of_paper[column].mean(),
                    "published_std": of_paper[column].std(ddof=1),
                    "rows": [row for row in every if row in complete.index],
                }
            )
    return pd.DataFrame(lines)


def describe(plan: Mapping[str, Any], number: str, averages: pd.DataFrame) -> list[str]:
    """Write the averages as a table in Markdown, under a title that says over how many rows they are."""
    row_name, column_name = next(iter(plan["rows"])), next(iter(plan["columns"]))
    rows, every = averages["rows"].iloc[0], plan["rows"][row_name]
    title = f"### Figure {number}: averages over {len(rows)} of {len(every)} rows ({', '.join(rows)})"
    lines = ["| metric | " + column_name + " | paper, mean ± std | here, mean ± std |", "|---|---|---|---|"]
    for line in averages.to_dict("records"):
        here = f"{line['mean']:.4f}" + ("" if pd.isna(line["std"]) else f" ± {line['std']:.4f}")
        paper = f"{line['published']:.4f} ± {line['published_std']:.4f}"
        lines.append(f"| {line['metric']} | {line[column_name]} | {paper} | {here} |")
    return ["", title, "", *lines, "", "± is the deviation between the rows."]


def draw(plan: Mapping[str, Any], number: str, averages: pd.DataFrame, heading: str, path: Path) -> None:
    """Draw a bar a metric and column, whiskers for the deviation between rows, diamonds for the published means."""
    column_name = next(iter(plan["columns"]))
    metrics = list(dict.fromkeys(averages["metric"]))
    columns = list(dict.fromkeys(averages[column_name]))
    figure, axis = plt.subplots(figsize=(2.2 + 1.4 * len(metrics), 4.4), layout="constrained")
    width = 0.8 / len(columns)
    for k, column in enumerate(columns):
        part = averages[averages[column_name] == column].set_index("metric").reindex(metrics)
        place = np.arange(len(metrics)) + (k - (len(columns) - 1) / 2) * width
        grey = str(0.75 - 0.4 * k / max(1, len(columns) - 1))
        axis.bar(place, part["mean"], width * 0.92, yerr=part["std"].fillna(0), label=column, color=grey, capsize=3)
        axis.plot(place, part["published"], "D", color="black", ms=3.5, label=None if k else "paper")
    axis.set_xticks(range(len(metrics)), metrics)
    axis.set_ylim(0, 1)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    axis.legend(loc="lower right")
    rows = averages["rows"].iloc[0]
    axis.set_title(f"Figure {number}: mean over {', '.join(rows)}", fontsize=9, wrap=True)
    figure.supxlabel(heading, fontsize=6, wrap=True)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=130)
    plt.close(figure)
