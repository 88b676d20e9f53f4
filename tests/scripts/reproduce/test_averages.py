"""Tests of averages over the rows of a grid."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from clinbundles.scripts.reproduce.averages import average, averaged_figures, describe, draw
from clinbundles.scripts.reproduce.plan import choose_tables

PLAN: dict[str, Any] = {
    "rows": {"network": ["A", "B", "C"]},
    "columns": {"arm": ["original", "positive", "reverse"]},
    "tables": {
        "1": {"title": "Dice", "metric": "dice", "published": {"A": [0.5, 0.6, 0.1], "B": [0.7, 0.9, None]}},
        "2": {"title": "IoU", "metric": "iou", "published": {"A": [0.4, 0.5, 0.1], "B": [0.6, 0.8, 0.2]}},
    },
    "averages": {"5": {"tables": ["1", "2"], "columns": ["original", "positive"]}},
}


def summary(missing: tuple[str, str] | None = ("C", "positive")) -> pd.DataFrame:
    means = {"A": (0.2, 0.4, 0.9), "B": (0.4, 0.8, 0.9), "C": (0.9, 0.1, 0.9)}
    lines = [
        {"table": table, "network": row, "arm": arm, "mean": mean / int(table)}
        for table in "12"
        for row, values in means.items()
        for arm, mean in zip(PLAN["columns"]["arm"], values, strict=True)
        if (row, arm) != missing
    ]
    return pd.DataFrame(lines)


def test_rows_that_lack_a_column_are_left_out_of_the_mean_and_named() -> None:
    table = average(PLAN, PLAN["averages"]["5"], summary())
    dice = table[table["metric"] == "Dice"].set_index("arm")
    assert dice["mean"].to_dict() == pytest.approx({"original": 0.3, "positive": 0.6})
    assert dice["std"].to_dict() == pytest.approx({"original": 0.2 / 2**0.5, "positive": 0.4 / 2**0.5})
    assert dice["published"].to_dict() == pytest.approx({"original": 0.6, "positive": 0.75})
    assert table["rows"].iloc[0] == ["A", "B"]
    text = describe(PLAN, "5", table)
    assert text[1] == "### Figure 5: averages over 2 of 3 rows (A, B)"
    assert "| Dice | positive | 0.7500 ± 0.2121 | 0.6000 ± 0.2828 |" in text


def test_the_number_of_the_figure_stands_for_its_tables() -> None:
    assert choose_tables(PLAN, "5") == ["1", "2"]
    assert list(averaged_figures(PLAN, ["1", "2"], ["original", "positive"])) == ["5"]
    assert averaged_figures(PLAN, ["1"], ["original", "positive"]) == {}
    assert averaged_figures(PLAN, ["1", "2"], ["original"]) == {}


def test_it_is_drawn(tmp_path: Path) -> None:
    draw(PLAN, "5", average(PLAN, PLAN["averages"]["5"], summary(None)), "data", tmp_path / "figure_5.png")
    with Image.open(tmp_path / "figure_5.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 20
