"""What ``per_image.csv`` says of all its images together: ``metrics.json`` where they have labels, or ``summary.json``.

Every ``metrics.json`` has ``images`` and ``failures`` (numbers of those that were read and were not), ``groups`` and
``unit`` (how many of what the intervals go over), ``scores`` (by name ``value``, ``low`` and ``high``, the ends of a
95 % interval, null where there is none), ``notes`` and, where they are known, ``sources`` and ``classes`` with scores
of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..metrics.intervals import describe_intervals, mean_interval, number_groups, rounded, with_interval
from .files import write_atomically

# Scores that lie within 0 to 1 by their nature; a difference of two does not.
WITHIN_0_TO_1 = set(
    ["dice", "iou", "miou", "precision", "recall", "accuracy", "f1", "ap", "sensitivity", "specificity"]
)
SCORED_ON = {"test": "test_", "training": "train_"}  # how metrics begin, by the split; else as the config says
UNKNOWN_GROUPS = "images, as patients are not known"


def summarize_classes(rows: Sequence[Mapping[str, Any]], class_names: Sequence[str]) -> dict[str, Any]:
    """Count what a classifier calls its images, which needs no labels.

    Args:
        rows: of the table, with prediction, probability_<class> and failure.
        class_names: of the classes.

    Returns:
        number of images and of failures and, of each class, how many images are called it, their share, and the mean
        of its probability over all images; None where no image could be read.
    """
    read = [row for row in rows if not row["failure"]]
    classes = {}
    for name in class_names:
        called = sum(row["prediction"] == name for row in read)
        mean = float(np.mean([row[f"probability_{name}"] for row in read])) if read else float("nan")
        share = called / len(read) if read else float("nan")
        classes[name] = {"called": called, "share": rounded(share), "mean_probability": rounded(mean)}
    return {"images": len(read), "failures": len(rows) - len(read), "classes": classes}


def summarize_metrics(
    metrics: Mapping[str, Sequence[Any]], groups: Sequence[Any], sources: Sequence[Any] = ()
) -> dict[str, Any]:
    """Find the mean of each per-image metric, with its 95 % interval over the groups, and the same of each source.

    Args:
        metrics: values by name, one an image; those that are not finite are left out and counted.
        groups: number of each image's patient or other group, "" where it has none and is a group of its own.
        sources: hospital or collection of each image, None where unknown; empty where that is not asked for.
    """
    summary = _summarize_one(metrics, groups)
    names = sorted({str(source) for source in sources if source is not None})
    members = {
        name: [k for k, source in enumerate(sources) if source is not None and str(source) == name] for name in names
    }
    by_source = {
        name: _summarize_one(
            {metric: [values[k] for k in rows] for metric, values in metrics.items()}, [groups[k] for k in rows]
        )
        for name, rows in members.items()
    }
    return summary | ({"sources": by_source} if by_source else {})


def _summarize_one(metrics: Mapping[str, Sequence[Any]], groups: Sequence[Any]) -> dict[str, Any]:
    numbers = np.array([np.nan if group == "" else group for group in groups], dtype=float)
    scores, cut = {}, []
    for name, values in metrics.items():
        each = np.array([float(value) for value in values])
        finite = np.isfinite(each)
        ends = mean_interval(each[finite], numbers[finite])
        if _is_within_0_to_1(name) and (np.clip(ends, 0, 1) != ends)[np.isfinite(ends)].any():
            ends = np.clip(ends, 0, 1)
            cut.append(name)
        mean = float(each[finite].mean()) if finite.any() else float("nan")
        scores[name] = {"images": int(finite.sum()), **with_interval(mean, ends)}
    summary = describe_set(groups)
    if cut:
        summary["notes"].append(f"Intervals of {', '.join(cut)} are cut to 0 to 1, where the score lies.")
    return summary | {"scores": scores}


def _is_within_0_to_1(name: str) -> bool:
    words = set(name.lower().split("_"))
    return bool(words & WITHIN_0_TO_1) and not words & {"difference", "loss"}


def named_by_split(metrics: Mapping[str, float], split: Any) -> dict[str, float]:
    """Name the metrics of an evaluation by the split that they are of, where its config says "val_" of any."""
    prefix = SCORED_ON.get(str(split), "val_")
    return {re.sub("^val_", prefix, name): value for name, value in metrics.items()}


def describe_set(groups: Sequence[Any]) -> dict[str, Any]:
    """Say of how many images a ``metrics.json`` is, and what its intervals go over.

    Args:
        groups: number of each image's patient or other group, "" where it has none and is a group of its own.
    """
    numbers = np.array([np.nan if group == "" else group for group in groups], dtype=float)
    n_groups = len(np.unique(number_groups(numbers, len(numbers))))
    unit = UNKNOWN_GROUPS if np.isnan(numbers).all() else "groups, such as patients"
    note = f"Intervals: {describe_intervals(n_groups, unit)}."
    return {"images": len(numbers), "failures": 0, "groups": n_groups, "unit": unit, "notes": [note]}


def write_summary(output_dir: Path, summary: Mapping[str, Any], *, name: str = "summary.json") -> None:
    """Write a summary into the folder of its table."""
    text = json.dumps(summary, indent=4, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(output_dir / name, text)
