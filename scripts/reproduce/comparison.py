"""Arms of a grid compared: paired by seed and item, with intervals, p-values and the smallest difference to be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from clinbundles.engines.metrics.intervals import (
    FEWEST_GROUPS,
    Resampled,
    describe_intervals,
    interval_of,
    mean_of,
    ratio_of,
)
from clinbundles.engines.metrics.significance import STANDARD_ERRORS, holm, say_seeds, sign_flip_p, smallest_difference


@dataclass(frozen=True)
class Measured:
    """A score of the cells of one row and column.

    Attributes:
        by_seed: the score of each seed's cell, all resampled alike.
        items: image and patient of what was scored, and its label where that counts; None where it differs by seed.
        within_bounds: the score lies within 0 to 1 and has an interval of its own.
        has_ratio: it is compared by its ratio, too.
        folds: number of cells whose images make one set, which stands under the first seed; 0 if each seed scored all.
    """

    by_seed: dict[int, Resampled]
    items: pd.DataFrame | None
    within_bounds: bool = True
    has_ratio: bool = False
    folds: int = 0

    @property
    def n_groups(self) -> int:
        """Number of patients or other groups."""
        return len(next(iter(self.by_seed.values())).group_values)


def describe(measured: Measured) -> dict[str, Any]:
    """Count the images and groups of a row and column, and find the interval of its score, averaged over the seeds."""
    if measured.items is None:
        return {}
    line = {"images": len(measured.items), "groups": measured.n_groups}
    if not measured.within_bounds:
        return line
    return line | _ends("", interval_of(mean_of(list(measured.by_seed.values())), units=measured.n_groups))


def compare(measured: Measured, reference: Measured) -> dict[str, Any]:
    """Compare a row and column with the first column: seed by seed and item by item.

    Both are resampled alike, and the seeds averaged in each resample: intervals and p are of other patients, not of
    other seeds.

    Args:
        measured: the arm.
        reference: the arm that it is compared with.

    Returns:
        difference with its ends, p (of flipped signs of the groups' differences) and smallest_difference, and where it
        has one the ratio with its ends; ``not_compared``, why, where seeds or items are not the same.
    """
    seeds, others = sorted(measured.by_seed), sorted(reference.by_seed)
    if seeds != others:
        return {"not_compared": f"seeds {_listed(seeds)} are not {_listed(others)}"}
    if measured.items is None or reference.items is None or not measured.items.equals(reference.items):
        return {"not_compared": "the images are not the same"}
    pairs = [(measured.by_seed[seed], reference.by_seed[seed]) for seed in seeds]
    differences = [Resampled(*map(np.subtract, *pair)) for pair in pairs]
    difference = mean_of(differences)
    line = {"difference": float(difference.value), **_ends("difference_", interval_of(difference))}
    line["p"] = sign_flip_p(difference.group_values)
    line["smallest_difference"] = smallest_difference(
        difference.group_values, np.array([float(each.value) for each in differences])
    )
    if measured.has_ratio:
        ratio = ratio_of(*(mean_of([pair[side] for pair in pairs]) for side in (0, 1)))
        line |= {"ratio": float(ratio.value), **_ends("ratio_", interval_of(ratio))}
    return line


def _ends(name: str, ends: np.ndarray) -> dict[str, float]:
    return {f"{name}low": float(ends[0]), f"{name}high": float(ends[1])}


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def adjust(summary: pd.DataFrame) -> pd.DataFrame:
    """Add ``p_holm``: p adjusted for the number of comparisons in each table."""
    if "p" not in summary:
        return summary
    return summary.assign(p_holm=summary.groupby("table", sort=False)["p"].transform(holm))


def feet(plan: Mapping[str, Any], summary: pd.DataFrame) -> list[str]:
    """Say what stands in the foot of the tables: the caveats, and for each row how small a difference it could show.

    Args:
        plan: the content of reproduce.json.
        summary: what :func:`.tables.summarise` returned.
    """
    lines = caveats(plan, summary)
    columns = summary[next(iter(plan["columns"]))].drop_duplicates()
    if len(columns) == 1:
        lines.append(f"{columns.iloc[0]}: no comparison, as it is the only column.")
    compared = summary[summary["difference"].notna()] if "difference" in summary else summary[:0]
    for row, group in compared.groupby(next(iter(plan["rows"])), sort=False):
        smallest = group.groupby("metric", sort=False)["smallest_difference"].max().dropna()
        n_seeds, n_groups = int(group["seeds"].min()), int(group["groups"].min())
        if len(smallest):
            counts = f"{n_seeds} seed{'s'[: n_seeds - 1]} and {n_groups} group{'s'[: n_groups - 1]}"
            values = ", ".join(f"{metric} {value:.2g}" for metric, value in smallest.items())
            lines.append(
                f"{row}: the smallest difference that {counts} could show ({STANDARD_ERRORS} times its standard error, "
                f"the largest of the columns): {values}."
            )
    if len(compared):
        lines.append("p: flipped signs of the groups' differences, adjusted by Holm for the comparisons of a table.")
    return lines


def caveats(plan: Mapping[str, Any], summary: pd.DataFrame) -> list[str]:
    """Say which rows have few groups and what their intervals are, where only seeds vary, and what is not compared."""
    row_name, column_name = next(iter(plan["rows"])), next(iter(plan["columns"]))
    lines: list[str] = []
    if "groups" not in summary:  # costs alone
        return lines
    for row, group in summary.groupby(row_name, sort=False):
        few = group[group["groups"] < FEWEST_GROUPS]
        lines += [f"{row}: {describe_intervals(int(number))}." for number in few["groups"].drop_duplicates()]
        if "difference" in group and len(alone := few[(few["groups"] < 2) & few["difference"].notna()]):
            n_seeds = int(alone["seeds"].min())
            lines.append(f"{row}: only seeds vary; {say_seeds(n_seeds, n_seeds)}.")
        if "folds" in group and len(folds := group["folds"].dropna()):
            lines.append(
                f"{row}: the {int(folds.max())} seeds are folds, each with test images of its own; means, differences "
                "and intervals are of all these images, ± is the deviation of the folds."
            )
        if "not_compared" in group:
            refused = group.dropna(subset="not_compared").drop_duplicates(column_name).to_dict("records")
            lines += [f"{row}, {line[column_name]}: not compared, as {line['not_compared']}." for line in refused]
    return lines
