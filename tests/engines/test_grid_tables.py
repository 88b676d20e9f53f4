from pathlib import Path

import pandas as pd
import pytest

from clinbundles.engines.grid_tables import Cell, as_markdown, as_results, plot, summarise

PLAN = {
    "rows": {"network_name": ["A", "B"]},
    "columns": {"arm": ["original", "positive"]},
    "tables": {"1": {"title": "Dice", "metric": "dice", "published": {"A": [0.5, 0.6], "B": [0.7, None]}}},
    "notes": ["a note"],
}


@pytest.fixture
def cells(tmp_path: Path) -> list:
    """Network A, two arms, two seeds, four images: positive is better by 0.1, 0.2, 0.1 and 0.2."""
    found = []
    for seed in (0, 1):
        for arm, gains in (("original", [0, 0, 0, 0]), ("positive", [0.1, 0.2, 0.1, 0.2])):
            folder = tmp_path / f"A_{arm}_{seed}"
            (folder / "test").mkdir(parents=True)
            values = [0.4 + 0.02 * seed + gain for gain in gains]
            pd.DataFrame({"image": list("wxyz"), "dice": values}).to_csv(folder / "test" / "per_image.csv", index=False)
            found.append(Cell("A", arm, seed, folder))
    return found


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
    results = as_results(PLAN, summarise(PLAN, ["1"], cells, "original"), {"seeds": [0, 1]})
    assert [(r["network_name"], r["arm"], r["seeds"]) for r in results] == [
        ("A", "original", [0, 1]),
        ("A", "positive", [0, 1]),
    ]
    assert results[0]["metrics"]["dice"] == {"mean": 0.41, "std": 0.0141, "published": 0.5}
    assert results[1]["metrics"]["dice"]["difference"] == 0.15
