"""``clinbundles score``: one table of scores for the cells that any program found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import load_decathlon_datalist

from clinbundles.engines.metrics.instance_sets import TITLES, ImageSet, ScoredImage
from clinbundles.engines.metrics.intervals import (
    FEWEST_GROUPS,
    Resampled,
    describe_intervals,
    interval_of,
    ratio_of,
    rounded,
    with_interval,
)
from clinbundles.engines.metrics.significance import sign_flip_p
from clinbundles.engines.outputs.files import write_atomically, write_csv_atomically
from clinbundles.scripts.report.tables import as_markdown

from .predictions import read_predictions


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
        by name value, low and high, and the same of the ratio and the difference, which has p, too; and all of it as a
        Markdown table.
    """
    one, another = images.resample(), other.resample() if other is not None else {}
    results: dict[str, Any] = {name: _numbers(each, images.n_groups) for name, each in one.items()}
    for name in one.keys() & another.keys():
        pair = one[name], another[name]
        difference = Resampled(*map(np.subtract, *pair))
        results[name]["other"] = _numbers(another[name], images.n_groups)
        results[name]["ratio"] = _numbers(ratio_of(*pair))
        results[name]["difference"] = _numbers(difference) | {"p": rounded(sign_flip_p(difference.group_values))}
    titles = ["score", "value", "95 %"]
    titles += ["other", "ratio", "ratio 95 %", "p"] if other is not None else []
    rows = [
        [TITLES[name], *_cells(row), *_beside(row, len(titles) - 3)]
        for name in TITLES
        if (row := results.get(name)) is not None
    ]
    few = images.n_groups < FEWEST_GROUPS
    note = f"\n{describe_intervals(images.n_groups, 'images or groups')}\n" if few else ""
    return results, as_markdown(titles, rows) + note


def _numbers(resampled: Resampled, units: int | None = None) -> dict[str, Any]:
    return with_interval(resampled.value, interval_of(resampled, units=units))


def _cells(numbers: Mapping[str, Any]) -> list[str]:
    value, low, high = (numbers[name] for name in ("value", "low", "high"))
    return ["" if value is None else f"{value:.3f}", "" if low is None else f"{low:.3f} to {high:.3f}"]


def _beside(row: Mapping[str, Any], n_columns: int) -> list[str]:
    if "other" not in row:
        return [""] * n_columns
    p = row["difference"]["p"]
    return [_cells(row["other"])[0], *_cells(row["ratio"]), "" if p is None else f"{p:.3f}"]


def _row(image: ScoredImage) -> dict[str, Any]:
    row: dict[str, Any] = {"image": image.name, "cells": len(image.truth.boxes)}
    if image.matches is None:
        return row | {"found": len(image.detections.scores), "hits": "", "false_alarms": "", "misses": "", "f1": ""}
    hits, false_alarms, misses, _ = image.matches
    row |= {"found": hits + false_alarms, "hits": hits, "false_alarms": false_alarms, "misses": misses}
    return row | {"f1": "" if np.isnan(image.matches.f1) else round(image.matches.f1, 6)}
