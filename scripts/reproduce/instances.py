"""Scores of the cells that a grid's runs found, over seeds, with intervals and ratios by resampled images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from monai.data import load_decathlon_datalist

from clinbundles.engines.metrics.intervals import FEWEST_GROUPS, interval
from clinbundles.scripts.score.predictions import read_predictions
from clinbundles.scripts.score.scores import ImageSet


class CellScores(NamedTuple):
    """The scores of one evaluation.

    Args:
        names: of its images.
        n_groups: of patients or other groups among them.
        values: by name.
        resampled: the same for each resample (R,); none where there are too few groups.
    """

    names: list[str]
    n_groups: int
    values: dict[str, float]
    resampled: dict[str, np.ndarray]


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
    n_groups = int(scored.groups.max()) + 1
    values = {name: float(value[0]) for name, value in scored.scores().items()}
    return CellScores(scored.names, n_groups, values, {} if n_groups < FEWEST_GROUPS else scored.scores(scored.draws()))


def compare(metric: str, cells: Sequence[CellScores], reference: Sequence[CellScores]) -> dict[str, float]:
    """Score the seeds of a row and column together, and beside those of the reference where they have the same images.

    Seeds are averaged within each resample, which is the same for both sides.

    Args:
        metric: "val_mask_ap" or another score of an evaluation.
        cells: of one row and column, one for each seed.
        reference: of the column that others are compared with; none for that column itself.
    """
    name = metric.removeprefix("val_")
    line: dict[str, float] = {"images": len(cells[0].names), "groups": cells[0].n_groups}
    value, resampled = _over_seeds(name, cells)
    line |= _ends("", resampled)
    if not reference or any(cell.names != cells[0].names for cell in (*cells, *reference)):
        return line
    other, other_resampled = _over_seeds(name, reference)
    line |= {"difference": value - other, "ratio": value / other if other else float("nan")}
    if resampled is None or other_resampled is None:
        return line | _ends("difference_", None) | _ends("ratio_", None)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = resampled / other_resampled
    return line | _ends("difference_", resampled - other_resampled) | _ends("ratio_", ratios)


def _ends(name: str, resampled: np.ndarray | None) -> dict[str, float]:
    """Give both ends of an interval, NaN where there is none."""
    values = np.full(1, np.nan) if resampled is None else np.where(np.isfinite(resampled), resampled, np.nan)
    low, high = interval(values)
    return {f"{name}low": low, f"{name}high": high}


def _over_seeds(name: str, cells: Sequence[CellScores]) -> tuple[float, np.ndarray | None]:
    value = float(np.mean([cell.values[name] for cell in cells]))
    if any(name not in cell.resampled for cell in cells):
        return value, None
    return value, np.mean([cell.resampled[name] for cell in cells], axis=0)
