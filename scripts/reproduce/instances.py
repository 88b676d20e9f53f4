"""Scores of the cells that a grid's runs found, with what their intervals and comparisons need."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from monai.data import load_decathlon_datalist

from clinbundles.engines.metrics.instance_sets import ImageSet
from clinbundles.engines.metrics.intervals import Resampled
from clinbundles.scripts.score.predictions import read_predictions


class CellScores(NamedTuple):
    """The scores of one evaluation.

    Args:
        items: its images, and the number of each one's patient or other group.
        resampled: scores by name.
    """

    items: pd.DataFrame
    resampled: dict[str, Resampled]


def has_instances(folder: Path) -> bool:
    """Tell whether the evaluation of a grid's cell found instances."""
    return (folder / "test" / "detections.json").is_file()


def read_cell(folder: Path) -> CellScores:
    """Score the evaluation of a cell, once as long as its files stay the same.

    Raises:
        ValueError: an image lacks its detections, or the truth its masks.
    """
    return _read(folder, (folder / "test" / "detections.json").stat().st_mtime_ns)


@cache
def _read(folder: Path, _: int) -> CellScores:
    data = json.loads((folder / "result.json").read_text())["data"]
    items = load_decathlon_datalist(data["datalist"], True, "test", data["dataset_dir"])
    images, left_out, _scores = read_predictions(folder / "test", items)
    for name, reason in left_out.items():
        raise ValueError(f"{folder / 'test'}: {name}: {reason}")
    scored = ImageSet(images)
    return CellScores(pd.DataFrame({"image": scored.names, "patient": scored.groups}), scored.resample())
