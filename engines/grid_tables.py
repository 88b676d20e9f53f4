"""What a grid of runs measured, set beside what a paper published: means, intervals, Markdown, a plot."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats


@dataclass(frozen=True)
class Cell:
    """One training and its evaluation: row and column of the published table, seed, and where its files are."""

    row: str
    column: str
    seed: int
    folder: Path


def summarise(plan: dict[str, Any], tables: Sequence[str], cells: Sequence[Cell], paired_with: str) -> pd.DataFrame:
    """One line a table, row and column: mean, spread over seeds, difference to the first column with its interval.

    The difference is taken image by image (each image's metric averaged over the seeds first); the interval is the 95 %
    percentile bootstrap over the images. It covers the choice of test images, not of seeds: those are the std column.
    """
    row_name, column_name = next(iter(plan["rows"])), next(iter(plan["columns"]))
    lines = []
    for number in tables:
        table = plan["tables"][number]
        images: dict[tuple, pd.DataFrame] = {}
        for cell in cells:
            values = pd.read_csv(cell.folder / "test" / "per_image.csv").set_index("image")[table["metric"]]
            key = (cell.row, cell.column)
            images[key] = pd.concat([images.get(key), values.rename(cell.seed)], axis=1)
        for (row, column), per_image in images.items():
            over_seeds = per_image.mean()
            published = table["published"].get(row, [None] * 9)[plan["columns"][column_name].index(column)]
            line = {
                "table": number,
                "metric": table["title"],
                row_name: row,
                column_name: column,
                "published": published,
                "mean": over_seeds.mean(),
                "std": over_seeds.std(ddof=1) if len(over_seeds) > 1 else None,
                "seeds": len(over_seeds),
                "images": len(per_image),
            }
            if column != paired_with and (row, paired_with) in images:
                difference = (per_image.mean(axis=1) - images[row, paired_with].mean(axis=1)).to_numpy()
                interval = stats.bootstrap(
                    (difference,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0)
                ).confidence_interval
                line |= {"difference": difference.mean(), "low": interval.low, "high": interval.high}
            lines.append(line)
    return pd.DataFrame(lines)


def as_markdown(plan: dict[str, Any], summary: pd.DataFrame, heading: str) -> str:
    """The summary as one Markdown table a published table."""
    row_name, column_name = next(iter(plan["rows"])), next(iter(plan["columns"]))
    columns = list(dict.fromkeys(summary[column_name]))
    text = [heading, ""]
    for number, table in summary.groupby("table", sort=False):
        text += [f"### Table {number}: {table['metric'].iloc[0]}", ""]
        head = [row_name]
        for column in columns:
            head += [f"{column} (paper)", f"{column} (here)"]
        head += [f"{c} − {columns[0]} [95 % CI]" for c in columns[1:]]
        text += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for row, group in table.groupby(row_name, sort=False):
            cells = {c: values.iloc[0] for c, values in group.groupby(column_name)}
            line = [str(row)]
            for column in columns:
                line += [_published(cells.get(column)), _mean_and_spread(cells.get(column))]
            line += [_difference(cells.get(column)) for column in columns[1:]]
            text.append("| " + " | ".join(line) + " |")
        text.append("")
    return "\n".join(text + [f"- {note}" for note in plan.get("notes", [])]) + "\n"


def _published(cell: pd.Series | None) -> str:
    return "–" if cell is None or pd.isna(cell["published"]) else f"{cell['published']:.4f}"


def _mean_and_spread(cell: pd.Series | None) -> str:
    if cell is None:
        return "–"
    return f"{cell['mean']:.4f}" + ("" if pd.isna(cell["std"]) else f" ± {cell['std']:.4f}")


def _difference(cell: pd.Series | None) -> str:
    if cell is None or pd.isna(cell.get("difference")):
        return "–"
    return f"{cell['difference']:+.4f} [{cell['low']:+.4f}, {cell['high']:+.4f}]"


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
            axis.bar(
                place, part["mean"].astype(float), width * 0.92, yerr=spread, label=column, color=f"C{k}", capsize=2
            )
            axis.plot(
                place,
                part["published"].astype(float),
                "D",
                color="black",
                markersize=3.5,
                label="paper" if k == 0 else None,
            )
        axis.set(title=f"Table {number}: {table['metric'].iloc[0]}", xticks=range(len(rows)), ylim=(0, 1))
        axis.set_xticklabels(rows, rotation=30, ha="right")
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.9), ncol=len(labels), frameon=False)
    figure.suptitle(textwrap.fill(heading, int(14 * figure.get_figwidth())), fontsize=8)
    figure.tight_layout(rect=(0, 0, 1, 0.86))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def as_results(plan: dict[str, Any], summary: pd.DataFrame, provenance: dict[str, Any]) -> list[dict[str, Any]]:
    """The summary as entries for ``results`` in a bundle's metadata: one a row and column, all its metrics in it.

    Args:
        plan: the content of reproduce.json.
        summary: what :func:`summarise` returned.
        provenance: command, data, split, seeds, hardware, scale: copied into every entry.
    """
    row_name, column_name = next(iter(plan["rows"])), next(iter(plan["columns"]))
    results = []
    for (row, column), group in summary.groupby([row_name, column_name], sort=False):
        metrics = {}
        for line in group.to_dict("records"):
            figures = {name: line.get(name) for name in ("mean", "std", "published", "difference", "low", "high")}
            known = {name: round(float(value), 4) for name, value in figures.items() if not pd.isna(value)}
            metrics[plan["tables"][line["table"]]["metric"]] = known
        results.append({row_name: row, column_name: column, **provenance, "metrics": metrics})
    return results
