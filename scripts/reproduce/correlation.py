"""Whether one test set puts a grid's networks in the order in which another does: Spearman's rank correlation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from clinbundles.engines.metrics.intervals import FEWEST_GROUPS, draw_groups, interval

from .tables import Cell


def correlate(plan: Mapping[str, Any], tables: Sequence[str], cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Correlate the ranks of the networks on the two test sets that a plan compares.

    A network is the training of a row, column and seed. The interval is that of resampled columns: the seeds of one
    resemble each other.

    Args:
        plan: the content of reproduce.json; ``rank_correlation`` has ``suffix``, which the columns of the other test
            set have behind the name of the column that was trained, and ``name``, what is correlated.
        tables: keys of those whose metric is taken.
        cells: finished ones.

    Returns:
        for each row and table with three networks or more: row, metric, its name, n, columns (their number), value, and
        low and high from ten columns on.
    """
    rule = plan.get("rank_correlation")
    if rule is None:
        return []
    pairs: dict[str, list[tuple[Cell, Cell]]] = {}
    by_key = {(cell.row, cell.column, cell.seed): cell for cell in cells}
    for (row, column, seed), cell in by_key.items():
        if (other := by_key.get((row, f"{column}{rule['suffix']}", seed))) is not None:
            pairs.setdefault(row, []).append((cell, other))
    found = []
    for row, both in pairs.items():
        for metric in (plan["tables"][name]["metric"] for name in tables if name in plan["tables"]):
            values = np.array([[_figure(cell, metric) for cell in pair] for pair in both])
            if len(values) < 3:
                continue
            columns = np.unique([cell.column for cell, _ in both], return_inverse=True)[1]
            n_columns = int(columns.max()) + 1
            line = {"row": row, "metric": metric, "name": rule["name"], "n": len(values), "columns": n_columns}
            line["value"] = _rank(values)
            if n_columns >= FEWEST_GROUPS:
                draws = draw_groups(n_columns)[:, columns]
                low, high = interval(np.array([_rank(np.repeat(values, draw, axis=0)) for draw in draws]))
                line |= {"low": float(low), "high": float(high)}
            found.append(line)
    return found


def _figure(cell: Cell, metric: str) -> float:
    return json.loads((cell.folder / "result.json").read_text())["figures"][metric]


def _rank(values: np.ndarray) -> float:
    if (values == values[0]).all(axis=0).any():  # ranks that are all equal have no correlation
        return float("nan")
    return float(spearmanr(values[:, 0], values[:, 1]).statistic)


def as_notes(correlations: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say each in a sentence."""
    return [
        f"{line['row']}: {line['name']}, {line['metric']} of {line['n']} networks: {line['value']:.2f}"
        + (f" [{line['low']:.2f}, {line['high']:.2f}] over {line['columns']} columns." if "low" in line else ".")
        for line in correlations
    ]


def as_results(correlations: Sequence[Mapping[str, Any]], runs: Mapping[str, str]) -> list[dict[str, Any]]:
    """Write them as results, one a row.

    Args:
        correlations: what :func:`correlate` returned.
        runs: name of the run of each row.
    """
    rows: dict[str, dict[str, Any]] = {}
    for line in correlations:
        result = rows.setdefault(line["row"], {"run": runs[line["row"]], "row": line["row"], "column": line["name"]})
        numbers = {key: round(line[key], 4) for key in ("value", "low", "high") if not np.isnan(line.get(key, np.nan))}
        if numbers:
            result.setdefault("metrics", {})[line["metric"]] = numbers
        result["note"] = f"Spearman's rank correlation over {line['n']} networks"
    return [result for result in rows.values() if "metrics" in result]
