"""``clinbundles score``: one table of scores for the cells that any program found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import load_decathlon_datalist

from clinbundles.engines.metrics.intervals import FEWEST_GROUPS, interval, with_interval
from clinbundles.engines.outputs.files import write_atomically, write_csv_atomically
from clinbundles.scripts.report.tables import as_markdown

from .predictions import ScoredImage, read_predictions
from .scores import TITLES, ImageSet


def score(
    predictions: str,
    *,
    datalist: str,
    dataset_dir: str | None = None,
    split: str = "test",
    against: str | None = None,
    output_dir: str | None = None,
) -> None:
    """Score the cells that any program found: average precision, F1 and panoptic quality, with intervals.

    Predictions are the folder of an evaluation or inference of pace_cell_segmentation, or label maps named after the
    images, of Cellpose, StarDist or any other program (TIFF, PNG, npy). Writes score.json and per_image.csv.

    Args:
        predictions: the folder.
        datalist: JSON datalist with instances, of clinbundles prepare.
        dataset_dir: folder of the data set; that of the datalist if not given.
        split: training, validation or test.
        against: another folder of predictions; both are scored on the images that both have.
        output_dir: where the results go; the folder "score" in that of the predictions if not given.
    """
    items = load_decathlon_datalist(datalist, True, split, str(dataset_dir or Path(datalist).parent))
    folders = [Path(predictions), *([Path(against)] if against else [])]
    read = [read_predictions(folder, items) for folder in folders]
    shared = set.intersection(*({image.name for image in images} for images, _, _ in read))
    for folder, (images, left_out, has_scores) in zip(folders, read, strict=True):
        print(f"{folder}: {len(items)} images came in, {len(images)} can be scored, {len(left_out)} are left out")
        for name, reason in left_out.items():
            print(f"  {name}: {reason}")
        if not has_scores and images:
            print("  label maps have no scores: each cell counts with 1, so that AP depends on the order of the images")
        for remark in remarks(images):
            print(f"  {remark}")
    if not shared:
        raise ValueError(f"{predictions}: holds nothing for the {split} split of {datalist} that can be scored.")
    sets = [[image for image in images if image.name in shared] for images, _, _ in read]
    results, table = compare(*map(ImageSet, sets))
    print(f"\n{len(shared)} images\n")
    print(table)
    output = Path(output_dir) if output_dir else folders[0] / "score"
    output.mkdir(parents=True, exist_ok=True)
    content = {"images": len(shared), "split": split, "left_out": read[0][1], "scores": results}
    write_atomically(output / "score.json", json.dumps(content, indent=4) + "\n")
    write_csv_atomically(output / "per_image.csv", list(map(_row, sets[0])))
    print(f"score.json and per_image.csv: {output}")


def remarks(images: Sequence[ScoredImage]) -> list[str]:
    """Say what is missing or looks wrong in what was read."""
    lines = []
    shown = [matches.matched + matches.surplus for image in images if (matches := image.matches) is not None]
    without = sum(any(mask is None for mask in image.truth.masks) for image in images)
    if without:
        lines.append(f"the truth of {without} images has cells without masks: boxes alone are scored")
    elif without := sum(image.matches is None for image in images):
        lines.append(f"{without} images have no label map: F1, TP/(TP+FP+FN) and panoptic quality are left out")
    elif shown and max(shown) == 1 < max(len(image.truth.boxes) for image in images):
        lines.append("no label map has more than one cell: masks of all cells in one number are no label maps")
    return lines


def compare(images: ImageSet, other: ImageSet | None = None) -> tuple[dict[str, Any], str]:
    """Score a set of images with intervals and, beside another one, its ratio to that.

    Returns:
        by name value, low and high, and the same of the ratio and the difference; and all of it as a Markdown table.
    """
    draws = images.draws()
    few = int(images.groups.max()) + 1 < FEWEST_GROUPS
    values, resamples = images.scores(), {} if few else images.scores(draws)
    results: dict[str, Any] = {name: _numbers(values[name][0], resamples.get(name)) for name in values}
    if other is not None:
        other_values, other_resamples = other.scores(), {} if few else other.scores(draws)
        for name in values.keys() & other_values.keys():
            pair = (resamples.get(name), other_resamples.get(name))
            results[name]["other"] = _numbers(other_values[name][0], pair[1])
            results[name]["ratio"] = _numbers(*_over(np.divide, values[name], other_values[name], *pair))
            results[name]["difference"] = _numbers(*_over(np.subtract, values[name], other_values[name], *pair))
    titles = ["score", "value", "95 %"]
    titles += ["other", "ratio", "ratio 95 %"] if other is not None else []
    rows = [
        [TITLES[name], *_cells(row), *_beside(row, len(titles) - 3)]
        for name in TITLES
        if (row := results.get(name)) is not None
    ]
    note = f"\n{int(images.groups.max()) + 1} images or groups are too few to resample: no intervals.\n" if few else ""
    return results, as_markdown(titles, rows) + note


def _over(
    how: np.ufunc, value: np.ndarray, other: np.ndarray, resampled: np.ndarray | None, others: np.ndarray | None
) -> tuple[float, np.ndarray | None]:
    with np.errstate(divide="ignore", invalid="ignore"):
        both = None if resampled is None or others is None else how(resampled, others)
        return float(how(value[0], other[0])), both


def _numbers(value: float, resampled: np.ndarray | None) -> dict[str, Any]:
    ends = np.full(2, np.nan) if resampled is None else interval(np.where(np.isfinite(resampled), resampled, np.nan))
    return with_interval(value, ends)


def _cells(numbers: Mapping[str, Any]) -> list[str]:
    value, low, high = (numbers[name] for name in ("value", "low", "high"))
    return ["" if value is None else f"{value:.3f}", "" if low is None else f"{low:.3f} to {high:.3f}"]


def _beside(row: Mapping[str, Any], n_columns: int) -> list[str]:
    return [_cells(row["other"])[0], *_cells(row["ratio"])] if "other" in row else [""] * n_columns


def _row(image: ScoredImage) -> dict[str, Any]:
    row: dict[str, Any] = {"image": image.name, "cells": len(image.truth.boxes)}
    if image.matches is None:
        return row | {"found": len(image.detections.scores), "hits": "", "false_alarms": "", "misses": "", "f1": ""}
    hits, false_alarms, misses, _ = image.matches
    row |= {"found": hits + false_alarms, "hits": hits, "false_alarms": false_alarms, "misses": misses}
    return row | {"f1": "" if np.isnan(image.matches.f1) else round(image.matches.f1, 6)}
