import json
from pathlib import Path

import pandas as pd
import pytest

from clinbundles.engines.grid_tables import Cell, as_markdown, as_results, figures_of, plot, plot_lines, summarise

PLAN = {
    "rows": {"network_name": ["A", "B"]},
    "columns": {"arm": ["original", "positive"]},
    "tables": {"1": {"title": "Dice", "metric": "dice", "published": {"A": [0.5, 0.6], "B": [0.7, None]}}},
    "notes": ["a note"],
}
SOURCES = {("A", "original"): {"seeds": [0, 1]}, ("A", "positive"): {"seeds": [0, 1]}}
COSTED = {
    "rows": {"data_set": {"eyes": {}, "cells": {}}},
    "columns": {"method": {"whole": {}, "half": {}}},
    "tables": {"3a": {"title": "soft Dice", "metric": "dice"}},
    "costs": {"3b": {"title": "GMAC", "cost": "macs", "factor": 1e-9, "name": "gmacs"}},
}


def write_cell(folder: Path, row: str, column: str, seed: int, *, dice: list[float], macs: float | None) -> Cell:
    (folder / "test").mkdir(parents=True)
    pd.DataFrame({"image": list("wxyz"), "dice": dice}).to_csv(folder / "test" / "per_image.csv", index=False)
    (folder / "test" / "cost.json").write_text(json.dumps({"macs": macs}))
    return Cell(row, column, seed, folder)


@pytest.fixture
def cells(tmp_path: Path) -> list:
    """Network A, two arms, two seeds, four images: positive is better by 0.1, 0.2, 0.1 and 0.2."""
    found = []
    for seed in (0, 1):
        for arm, gains in (("original", [0, 0, 0, 0]), ("positive", [0.1, 0.2, 0.1, 0.2])):
            values = [0.4 + 0.02 * seed + gain for gain in gains]
            found.append(write_cell(tmp_path / f"A_{arm}_{seed}", "A", arm, seed, dice=values, macs=1))
    return found


@pytest.fixture
def costed(tmp_path: Path) -> list:
    """Eyes by both methods, cells by one, which leaves no cost; half the work costs a quarter and loses 0.1."""
    return [
        write_cell(tmp_path / "a", "eyes", "whole", 0, dice=[0.8, 0.7, 0.8, 0.7], macs=4e9),
        write_cell(tmp_path / "b", "cells", "whole", 0, dice=[0.6, 0.6, 0.6, 0.6], macs=None),
        write_cell(tmp_path / "c", "eyes", "half", 0, dice=[0.7, 0.6, 0.7, 0.6], macs=1e9),
    ]


def test_means_spreads_and_paired_differences_are_those_counted_by_hand(cells: list) -> None:
    summary = summarise(PLAN, ["1"], cells, "original").set_index("arm")
    assert summary.loc["original", "mean"] == pytest.approx(0.41)
    assert summary.loc["original", "std"] == pytest.approx(0.02 / 2**0.5)
    assert pd.isna(summary.loc["original", "difference"])
    positive = summary.loc["positive"]
    assert positive["difference"] == pytest.approx(0.15)
    assert 0.0999 < positive["low"] < 0.15 < positive["high"] < 0.2001
    assert positive["published"] == 0.6
    assert positive["images"] == 4


def test_tables_and_plot_show_measured_beside_published(cells: list, tmp_path: Path) -> None:
    summary = summarise(PLAN, ["1"], cells, "original")
    text = as_markdown(PLAN, summary, "heading")
    assert "| A | 0.5000 | 0.4100 ± 0.0141 | 0.6000 | 0.5600 ± 0.0141 | +0.1500 [" in text
    assert "- a note" in text
    plot(PLAN, summary, "heading", tmp_path / "tables.png")
    assert (tmp_path / "tables.png").stat().st_size > 5000


def test_results_hold_every_metric_of_a_row_and_column_with_its_source(cells: list) -> None:
    results = as_results(PLAN, summarise(PLAN, ["1"], cells, "original"), SOURCES)
    assert [(r["network_name"], r["arm"], r["seeds"]) for r in results] == [
        ("A", "original", [0, 1]),
        ("A", "positive", [0, 1]),
    ]
    assert results[0]["metrics"]["dice"] == {"mean": 0.41, "std": 0.0141, "published": 0.5}
    assert results[1]["metrics"]["dice"]["difference"] == 0.15


def test_a_cost_is_converted_and_compared_as_a_part_of_the_first_column(costed: list) -> None:
    summary = summarise(COSTED, ["3a", "3b"], costed, "whole").set_index(["table", "data_set", "method"])
    half = summary.loc["3b", "eyes", "half"]
    assert half["mean"] == pytest.approx(1)
    assert half["ratio"] == pytest.approx(0.25)
    assert pd.isna(half["difference"])
    assert summary.loc["3a", "eyes", "half"]["difference"] == pytest.approx(-0.1)


def test_tables_without_published_figures_share_one_and_show_what_was_left_out(costed: list) -> None:
    text = as_markdown(COSTED, summarise(COSTED, ["3a", "3b"], costed, "whole"), "heading")
    assert "| data_set | method | soft Dice | − whole [95 % CI] | GMAC (part of whole) |" in text
    assert "| eyes | half | 0.6500 | -0.1000 [-0.1000, -0.1000] | 1 (0.250) |" in text
    assert "| cells | whole | 0.6000 | – | – |" in text
    assert "| cells | half | – | – | – |" in text
    assert "paper" not in text


def test_results_keep_costs_apart_from_metrics_and_leave_unknown_ones_out(costed: list) -> None:
    sources = {(cell.row, cell.column): {"seeds": [0]} for cell in costed}
    results = as_results(COSTED, summarise(COSTED, ["3a", "3b"], costed, "whole"), sources)
    assert [(r["data_set"], r["method"], r.get("cost")) for r in results] == [
        ("eyes", "whole", {"gmacs": 4.0}),
        ("eyes", "half", {"gmacs": 1.0}),
        ("cells", "whole", None),
    ]
    assert all(set(r["metrics"]) == {"dice"} for r in results)


@pytest.mark.parametrize("tables", [["3a", "3b"], ["3a"], ["3b"]])
def test_lines_are_drawn_with_and_without_costs(costed: list, tmp_path: Path, tables: list) -> None:
    plot_lines(COSTED, summarise(COSTED, tables, costed, "whole"), "heading", tmp_path / "lines.png")
    assert (tmp_path / "lines.png").stat().st_size > 5000


def test_a_figure_that_a_cell_did_not_measure_is_named(costed: list) -> None:
    with pytest.raises(ValueError, match=r"per_image\.csv: has no iou, only dice"):
        figures_of({"metric": "iou"}, costed[0].folder)
    with pytest.raises(ValueError, match=r"cost\.json: has no seconds, only macs"):
        figures_of({"cost": "seconds"}, costed[0].folder)
