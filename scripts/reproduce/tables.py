"""What a grid of runs measured, set beside what a paper published: means, intervals, Markdown."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clinbundles.engines.metrics.class_overlap import OVERLAP_SCORES
from clinbundles.engines.metrics.classification import SCORES, confusion_matrices, resample_scores
from clinbundles.engines.metrics.intervals import draw_one_by_one, number_groups, resample_mean
from clinbundles.engines.outputs.cost import read_cost
from clinbundles.engines.outputs.per_image import patients_of, read_per_image

from .comparison import Measured, adjust, compare, describe, feet
from .instances import has_instances, read_cell


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


def measure(table: dict[str, Any], cells: Sequence[Cell], *, like: Measured | None = None) -> Measured | None:
    """Resample what the cells of a row and column measured for a table by patient or group, seed by seed.

    Args:
        table: as for :func:`figures_of`.
        cells: of one row and column, one for each seed.
        like: what the first column of the row measured, whose order of images is taken.

    Returns:
        the measured, None for a cost.
    """
    if "metric" not in table:
        return None
    if has_instances(cells[0].folder):
        measure_cell = _of_instances
    elif labelled_set_of(table, cells[0].folder) is not None:
        measure_cell = _of_set
    else:
        measure_cell = _of_images
    measured = [measure_cell(table, [cell], like) for cell in cells]
    if measure_cell is _of_images and are_folds([one.items for one in measured]):
        return replace(measure_cell(table, cells, like), folds=len(cells))
    by_seed = {seed: value for one in measured for seed, value in one.by_seed.items()}
    return replace(measured[0], by_seed=by_seed, items=_shared([one.items for one in measured]))


def are_folds(items: Sequence[pd.DataFrame | None]) -> bool:
    """Tell whether there are several cells and no two have scored the same image."""
    images = [name for one in items if one is not None for name in one["image"]]
    return len(items) > 1 and len(images) > 0 and len(images) == len(set(images))


def _shared(items: Sequence[pd.DataFrame | None]) -> pd.DataFrame | None:
    first = items[0]
    return first if first is not None and all(first.equals(other) for other in items) else None


def _of_instances(table: dict[str, Any], cells: Sequence[Cell], like: Measured | None) -> Measured:
    (cell,) = cells
    scored = read_cell(cell.folder)
    return Measured({cell.seed: scored.resampled[table["metric"].removeprefix("val_")]}, scored.items, has_ratio=True)


def _of_set(table: dict[str, Any], cells: Sequence[Cell], like: Measured | None) -> Measured:
    (cell,) = cells
    labelled, name = labelled_set_of(table, cell.folder), table["metric"]
    if labelled is None:
        raise ValueError(f"{cell.folder / 'test' / 'per_image.csv'}: lacks what {name} is counted from.")
    return Measured({cell.seed: resample_scores(labelled.matrices, {name: SET_SCORES[name]})[name]}, labelled.images)


def _of_images(table: dict[str, Any], cells: Sequence[Cell], like: Measured | None) -> Measured:
    tables: list[pd.DataFrame] = []
    for cell in cells:
        images, _ = read_per_image(cell.folder / "test" / "per_image.csv", columns=[table["metric"]])
        first = tables[-1]["patient"].max() + 1 if tables else 0  # each file numbers its patients from 0
        tables.append(images.assign(patient=first + number_groups(patients_of(images), len(images))))
    images = pd.concat(tables, ignore_index=True)
    if like is not None and like.items is not None and set(images["image"]) == set(like.items["image"]):
        images = images.set_index("image").loc[like.items["image"]].reset_index()
    patients = pd.factorize(images["patient"])[0]  # by appearance, in any order of rows
    resampled = resample_mean(images[table["metric"]].to_numpy(dtype=float), patients, draw=draw_one_by_one)
    return Measured({cells[0].seed: resampled}, images[["image"]].assign(patient=patients), within_bounds=False)


def summarise(plan: dict[str, Any], tables: Sequence[str], cells: Sequence[Cell], paired_with: str) -> pd.DataFrame:
    """One line a table, row and column: mean, spread over seeds, difference to the first column with its interval.

    Intervals are those of :func:`~clinbundles.engines.metrics.intervals.interval_of`, by patient or group where the
    table has them. They cover the choice of test images, not of seeds: those are the std column. Scores of a whole set
    and of instances have one of their own. Differences are those of :func:`.comparison.compare`, where both columns
    have the same seeds and images. Seeds that have scored no image in common are folds: their images count as one set.
    A cost has its ratio instead.
    """
    row_name, column_name = next(iter(plan["rows"])), next(iter(plan["columns"]))
    groups: dict[tuple, list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.row, cell.column), []).append(cell)
    lines = []
    for number in tables:
        table = tables_of(plan)[number]
        first = {row: measure(table, group) for (row, column), group in groups.items() if column == paired_with}
        for (row, column), group in groups.items():
            over_seeds = _over_seeds(table, group)
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
            reference = first.get(row)
            if (measured := measure(table, group, like=reference)) is not None:
                line |= describe(measured)
                if measured.folds:
                    line |= {"mean": float(measured.by_seed[group[0].seed].value), "folds": measured.folds}
                if column != paired_with:
                    absent = {"not_compared": f"{paired_with} is not there"}
                    line |= absent if reference is None else compare(measured, reference)
            elif (row, paired_with) in groups and (whole := _over_seeds(table, groups[row, paired_with]).mean()):
                line["ratio"] = over_seeds.mean() / whole
            lines.append(line)
    return adjust(pd.DataFrame(lines))


def _over_seeds(table: dict[str, Any], cells: Sequence[Cell]) -> pd.Series:
    return pd.Series([figures_of(table, cell.folder).mean() for cell in cells], dtype=float)


def as_markdown(plan: dict[str, Any], summary: pd.DataFrame, heading: str) -> str:
    """The summary in Markdown: a table with published figures as the paper has it, the others side by side in one."""
    text = [heading, ""]
    compared = [number for number, table in tables_of(plan).items() if "published" in table]
    for number, table in summary[summary["table"].isin(compared)].groupby("table", sort=False):
        text += [f"### Table {number}: {table['metric'].iloc[0]}", "", *_beside_published(plan, table), ""]
    others = summary[~summary["table"].isin(compared)]
    if len(others):
        text += [*_side_by_side(plan, others), ""]
    return "\n".join(text + [f"- {note}" for note in [*plan.get("notes", []), *feet(plan, summary)]]) + "\n"


def _beside_published(plan: dict[str, Any], table: pd.DataFrame) -> list[str]:
    row_name, column_name = next(iter(plan["rows"])), next(iter(plan["columns"]))
    columns = list(dict.fromkeys(table[column_name]))
    head = [row_name]
    for column in columns:
        head += [f"{column} (paper)", f"{column} (here)"]
    sign = "/" if _has_ratios(table) else "−"
    head += [f"{c} {sign} {columns[0]} [95 % CI], p" for c in columns[1:]]
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
    if len(columns) == 1:
        return _alone(plan, summary, titles)
    head = [row_name, column_name]
    for number, title in titles.items():
        metric = number in plan["tables"]
        sign = "/" if _has_ratios(summary) else "−"
        head += [title, f"{sign} {columns[0]} [95 % CI], p"] if metric else [f"{title} (part of {columns[0]})"]
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


def _alone(plan: dict[str, Any], summary: pd.DataFrame, titles: pd.Series) -> list[str]:
    """One line a row of a single column, with nothing to compare it with."""
    row_name, column_name = next(iter(plan["rows"])), next(iter(plan["columns"]))
    head = [row_name, column_name, *titles]
    text = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row, group in summary.groupby(row_name, sort=False):
        cells = {cell["table"]: cell for _, cell in group.iterrows()}
        line = [str(row), group[column_name].iloc[0]]
        for number in titles.index:
            cell = cells.get(number)
            line.append(_mean_and_spread(cell) if number in plan["tables"] else _cost(cell, alone=True))
        text.append("| " + " | ".join(line) + " |")
    return text


def _cost(cell: pd.Series | None, *, alone: bool = False) -> str:
    if cell is None or pd.isna(cell["mean"]):
        return "–"
    return f"{cell['mean']:.4g}" + ("" if alone or pd.isna(cell.get("ratio")) else f" ({cell['ratio']:.3f})")


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
    return f"{cell['ratio']:.3f}" + _interval(cell, "ratio", ".3f") + _p(cell)


def _difference(cell: pd.Series | None) -> str:
    if cell is None or pd.isna(cell.get("difference")):
        return "–"
    return f"{cell['difference']:+.4f}" + _interval(cell, "difference", "+.4f") + _p(cell)


def _interval(cell: pd.Series, name: str, spec: str) -> str:
    low, high = cell[f"{name}_low"], cell[f"{name}_high"]
    return "" if pd.isna(low) else f" [{low:{spec}}, {high:{spec}}]"


def _p(cell: pd.Series) -> str:
    return "" if pd.isna(cell.get("p_holm")) else f", {cell['p_holm']:.2g}"
