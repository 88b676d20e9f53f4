"""What a grid of runs measured, set beside what a paper published: means, intervals, Markdown."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clinbundles.engines.metrics.class_overlap import OVERLAP_SCORES
from clinbundles.engines.metrics.classification import SCORES, confusion_matrices
from clinbundles.engines.metrics.intervals import (
    FEWEST_GROUPS,
    draw_groups,
    draw_one_by_one,
    interval,
    mean_interval,
    number_groups,
    resample_matrices,
)
from clinbundles.engines.outputs.cost import read_cost
from clinbundles.engines.outputs.per_image import patients_of, read_per_image

from .instances import compare, has_instances, read_cell


@dataclass(frozen=True)
class Cell:
    """A training, an evaluation or both: row and column of the published table, seed, and where its files are."""

    row: str
    column: str
    seed: int
    folder: Path


def tables_of(plan: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """From the content of reproduce.json to all its tables by key: of per-image metrics, then of costs."""
    return {**plan["tables"], **plan.get("costs", {})}


SET_SCORES = SCORES | OVERLAP_SCORES


@dataclass(frozen=True)
class LabelledSet:
    """What a classifier, of images or of pixels, did with a set of images.

    Attributes:
        images: name and patient of each, and its label where it has one.
        matrices: of each patient the confusion matrix (P, K, K), or (P, 2, K) the pixels of each class in truth and
            prediction and those in either.
    """

    images: pd.DataFrame
    matrices: np.ndarray


def figures_of(table: dict[str, Any], folder: Path) -> pd.Series:
    """What a finished cell measured for a table: one figure an image, or a single one under "all" out.

    Args:
        table: with ``metric``, a column of test/per_image.csv, or one of SET_SCORES, which is a single figure of the
            whole set if that file has what it is counted from, or a score of instances, which is one too; or with
            ``cost``, a key of test/cost.json, which is multiplied by ``factor``. Images that could not be read are left
            out.
        folder: the cell's.

    Raises:
        ValueError: the file has no such column or key; an image has no label.
    """
    if "metric" in table and has_instances(folder):
        return pd.Series({"all": read_scores(folder)[table["metric"]]}, dtype=float)
    if (labelled := labelled_set_of(table, folder)) is not None:
        return pd.Series({"all": float(SET_SCORES[table["metric"]](labelled.matrices.sum(0)))})
    if "metric" in table:
        images, _ = read_per_image(folder / "test" / "per_image.csv", columns=[table["metric"]])
        return images.set_index("image")[table["metric"]]
    cost = read_cost(folder / "test" / "cost.json", table["cost"])
    return pd.Series({"all": cost}, dtype=float) * table.get("factor", 1)


def read_scores(folder: Path) -> dict[str, float]:
    """Read what an evaluation of instances measured over all images."""
    return json.loads((folder / "test" / "scores.json").read_text())


def labelled_set_of(table: dict[str, Any], folder: Path) -> LabelledSet | None:
    """What a table's metric is counted from if it is a score of a whole set, else None."""
    if table.get("metric") not in SET_SCORES:
        return None
    path = folder / "test" / "per_image.csv"
    images, _ = read_per_image(path)
    if table["metric"] in OVERLAP_SCORES:
        return _count_pixels(images)
    if not {"label", "prediction"} <= set(images):
        return None
    for column in ("label", "prediction"):
        if (missing := images[column].isna()).any():
            raise ValueError(f"{path}: {images.loc[missing, 'image'].iloc[0]} has no {column}.")
    probabilities = [column.removeprefix("probability_") for column in images if column.startswith("probability_")]
    names = pd.Index(sorted({*probabilities, *images["label"], *images["prediction"]}))
    patients = number_groups(patients_of(images), len(images))
    labels, predictions = (names.get_indexer(pd.Index(images[column])) for column in ("label", "prediction"))
    matrices = confusion_matrices(labels, predictions, num_classes=len(names), clusters=patients)
    return LabelledSet(images[["image", "label"]].assign(patient=patients), matrices)


def _count_pixels(images: pd.DataFrame) -> LabelledSet | None:
    """Add up the pixels of each class by patient, where the table of an evaluation has them."""
    n_classes = sum(column.startswith("both_") for column in images)
    if not n_classes:
        return None
    counts = np.stack(
        [images[[f"{name}_{k}" for k in range(n_classes)]].to_numpy(dtype=float) for name in ("both", "either")], axis=1
    )
    patients = number_groups(patients_of(images), len(images))
    matrices = np.zeros((patients.max() + 1, 2, n_classes))
    np.add.at(matrices, patients, counts)
    return LabelledSet(images[["image"]].assign(patient=patients), matrices)


def summarise(plan: dict[str, Any], tables: Sequence[str], cells: Sequence[Cell], paired_with: str) -> pd.DataFrame:
    """One line a table, row and column: mean, spread over seeds, difference to the first column with its interval.

    The difference is taken image by image (each image's metric averaged over the seeds first); its interval is that of
    :func:`~clinbundles.engines.metrics.intervals.mean_interval`, by patient or group where the table has them. It
    covers the choice of test images, not of seeds: those are the std column. A score of a whole set has an interval of
    its own too, both from resampling the patients, the score averaged over the seeds in each resample; with fewer than
    ten it has none. A score of instances has its ratio to the first column beside that; a cost has its ratio instead.
    """
    row_name, column_name = next(iter(plan["rows"])), next(iter(plan["columns"]))
    groups: dict[tuple, list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.row, cell.column), []).append(cell)
    lines = []
    for number in tables:
        table = tables_of(plan)[number]
        figures = {
            key: pd.concat([figures_of(table, cell.folder).rename(cell.seed) for cell in group], axis=1)
            for key, group in groups.items()
        }
        found = {key: [labelled_set_of(table, cell.folder) for cell in group] for key, group in groups.items()}
        sets = {key: [one for one in several if one is not None] for key, several in found.items()}
        for (row, column), measured in figures.items():
            over_seeds = measured.mean()
            published = table.get("published", {}).get(row)
            line = {
                "table": number,
                "metric": table["title"],
                row_name: row,
                column_name: column,
                "published": published and published[list(plan["columns"][column_name]).index(column)],
                "mean": over_seeds.mean(),
                "std": over_seeds.std(ddof=1) if len(over_seeds) > 1 else None,
                "seeds": len(over_seeds),
            }
            reference = figures.get((row, paired_with))
            group = groups[row, column]
            if "metric" in table and has_instances(group[0].folder):
                compared_cells = [] if column == paired_with else groups.get((row, paired_with), [])
                line |= compare(
                    table["metric"],
                    [read_cell(cell.folder) for cell in group],
                    [read_cell(cell.folder) for cell in compared_cells],
                )
            elif sets[row, column]:
                compared = [] if column == paired_with else sets.get((row, paired_with), [])
                line |= _of_sets(SET_SCORES[table["metric"]], sets[row, column], compared)
            elif "metric" in table:
                line["images"] = len(measured)
                if column != paired_with and reference is not None:
                    images, _ = read_per_image(groups[row, column][0].folder / "test" / "per_image.csv")
                    in_order = images.set_index("image").reindex(measured.index)
                    line |= _paired(measured, reference, patients_of(in_order))
            elif reference is not None and (whole := reference.mean().mean()):
                line["ratio"] = over_seeds.mean() / whole
            lines.append(line)
    return pd.DataFrame(lines)


def _paired(measured: pd.DataFrame, reference: pd.DataFrame, patients: np.ndarray | None) -> dict[str, float]:
    difference = (measured.mean(axis=1) - reference.mean(axis=1)).to_numpy()
    low, high = mean_interval(difference, patients, draw=draw_one_by_one)
    groups = int(number_groups(patients, len(difference)).max()) + 1
    return {"difference": difference.mean(), "difference_low": low, "difference_high": high, "groups": groups}


def _of_sets(
    score: Callable[[np.ndarray], np.ndarray], sets: Sequence[LabelledSet], reference: Sequence[LabelledSet]
) -> dict[str, float]:
    """A score's interval and, where the reference has the same images, its difference to that, also with interval."""

    def over_seeds(several: Sequence[LabelledSet]) -> tuple[float, np.ndarray]:
        # Every set of P patients gets the same draws, which makes the difference of two a paired one.
        draws = draw_groups(len(several[0].matrices))
        resampled = [score(resample_matrices(one.matrices, draws)) for one in several]
        return float(np.mean([score(one.matrices.sum(0)) for one in several])), np.mean(resampled, axis=0)

    same = [one for one in (*sets, *reference) if one.images.equals(sets[0].images)]
    mean, resampled = over_seeds(sets)
    low, high = interval(resampled)
    line = {"images": len(sets[0].images), "groups": len(sets[0].matrices), "low": low, "high": high}
    if reference and len(same) == len(sets) + len(reference):
        reference_mean, reference_resampled = over_seeds(reference)
        low, high = interval(resampled - reference_resampled)
        line |= {"difference": mean - reference_mean, "difference_low": low, "difference_high": high}
    return line


def as_markdown(plan: dict[str, Any], summary: pd.DataFrame, heading: str) -> str:
    """The summary in Markdown: a table with published figures as the paper has it, the others side by side in one."""
    text = [heading, ""]
    compared = [number for number, table in tables_of(plan).items() if "published" in table]
    for number, table in summary[summary["table"].isin(compared)].groupby("table", sort=False):
        text += [f"### Table {number}: {table['metric'].iloc[0]}", "", *_beside_published(plan, table), ""]
    others = summary[~summary["table"].isin(compared)]
    if len(others):
        text += [*_side_by_side(plan, others), ""]
    return "\n".join(text + [f"- {note}" for note in [*plan.get("notes", []), *few_groups(plan, summary)]]) + "\n"


def few_groups(plan: Mapping[str, Any], summary: pd.DataFrame) -> list[str]:
    """Say which rows have too few patients or groups to resample, and what became of their intervals."""
    if "groups" not in summary:
        return []
    few = summary[summary["groups"] < FEWEST_GROUPS]
    return [
        f"{row}: {int(lines['groups'].iloc[0])} patients or groups are too few to resample; "
        + (
            "intervals are Student's t over their means."
            if lines.filter(regex="low$").notna().any(axis=None)
            else "there are no intervals."
        )
        for row, lines in few.groupby(next(iter(plan["rows"])), sort=False)
    ]


def _beside_published(plan: dict[str, Any], table: pd.DataFrame) -> list[str]:
    row_name, column_name = next(iter(plan["rows"])), next(iter(plan["columns"]))
    columns = list(dict.fromkeys(table[column_name]))
    head = [row_name]
    for column in columns:
        head += [f"{column} (paper)", f"{column} (here)"]
    sign = "/" if _has_ratios(table) else "−"
    head += [f"{c} {sign} {columns[0]} [95 % CI]" for c in columns[1:]]
    text = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row, group in table.groupby(row_name, sort=False):
        cells = {c: values.iloc[0] for c, values in group.groupby(column_name)}
        line = [str(row)]
        for column in columns:
            line += [_published(cells.get(column)), _mean_and_spread(cells.get(column))]
        compared = _ratio if _has_ratios(table) else _difference
        line += [compared(cells.get(column)) for column in columns[1:]]
        text.append("| " + " | ".join(line) + " |")
    return text


def _side_by_side(plan: dict[str, Any], summary: pd.DataFrame) -> list[str]:
    """One line a row and column, also where the row leaves the column out; a table's figures in each column."""
    row_name, column_name = next(iter(plan["rows"])), next(iter(plan["columns"]))
    rows, columns = list(dict.fromkeys(summary[row_name])), list(dict.fromkeys(summary[column_name]))
    cells = {(c["table"], c[row_name], c[column_name]): c for _, c in summary.iterrows()}
    titles = summary.drop_duplicates("table").set_index("table")["metric"]
    head = [row_name, column_name]
    for number, title in titles.items():
        metric = number in plan["tables"]
        sign = "/" if _has_ratios(summary) else "−"
        head += [title, f"{sign} {columns[0]} [95 % CI]"] if metric else [f"{title} (part of {columns[0]})"]
    text = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row, column in itertools.product(rows, columns):
        line = [row, column]
        for number in titles.index:
            cell = cells.get((number, row, column))
            if number in plan["tables"]:
                line += [_mean_and_spread(cell), _ratio(cell) if _has_ratios(summary) else _difference(cell)]
            else:
                line.append(_cost(cell))
        text.append("| " + " | ".join(line) + " |")
    return text


def _cost(cell: pd.Series | None) -> str:
    if cell is None or pd.isna(cell["mean"]):
        return "–"
    return f"{cell['mean']:.4g}" + ("" if pd.isna(cell.get("ratio")) else f" ({cell['ratio']:.3f})")


def _published(cell: pd.Series | None) -> str:
    return "–" if cell is None or pd.isna(cell["published"]) else f"{cell['published']:.4f}"


def _mean_and_spread(cell: pd.Series | None) -> str:
    if cell is None:
        return "–"
    return f"{cell['mean']:.4f}" + ("" if pd.isna(cell["std"]) else f" ± {cell['std']:.4f}")


def _has_ratios(table: pd.DataFrame) -> bool:
    """Tell whether metrics are compared by their ratio."""
    return {"ratio", "difference"} <= set(table) and bool((table["ratio"].notna() & table["difference"].notna()).any())


def _ratio(cell: pd.Series | None) -> str:
    if cell is None or pd.isna(cell.get("ratio")):
        return "–"
    return f"{cell['ratio']:.3f}" + _interval(cell, "ratio", ".3f")


def _difference(cell: pd.Series | None) -> str:
    if cell is None or pd.isna(cell.get("difference")):
        return "–"
    return f"{cell['difference']:+.4f}" + _interval(cell, "difference", "+.4f")


def _interval(cell: pd.Series, name: str, spec: str) -> str:
    low, high = cell[f"{name}_low"], cell[f"{name}_high"]
    return "" if pd.isna(low) else f" [{low:{spec}}, {high:{spec}}]"
