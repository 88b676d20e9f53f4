"""Tests of a grid whose seeds are folds: their test images count as one set."""

import json
from pathlib import Path

import pandas as pd
import pytest

from clinbundles.scripts.reproduce.comparison import feet
from clinbundles.scripts.reproduce.tables import Cell, summarise

PLAN = {
    "rows": {"data_set": {"eyes": {}}},
    "columns": {"method": {"whole": {}, "half": {}}},
    "tables": {"3a": {"title": "soft Dice", "metric": "dice"}},
    "costs": {"3b": {"title": "GMAC", "cost": "macs", "name": "gmacs"}},
}
DICE = {0: [0.5, 0.6, 0.7], 1: [0.8, 0.9]}  # images of each fold
GAIN = {0: [0.1, 0.1, 0.1], 1: [0.3, 0.3]}


def write_folds(tmp_path: Path, *, overlap: bool = False) -> list[Cell]:
    cells = []
    for column in ("whole", "half"):
        for fold, values in DICE.items():
            folder = tmp_path / f"{column}_{fold}"
            (folder / "test").mkdir(parents=True)
            gained = [value + (gain if column == "half" else 0) for value, gain in zip(values, GAIN[fold], strict=True)]
            names = [f"{0 if overlap else fold}_{k}" for k in range(len(values))]
            table = pd.DataFrame({"image": names, "patient": range(len(names)), "dice": gained})
            table.to_csv(folder / "test" / "per_image.csv", index=False)
            (folder / "test" / "cost.json").write_text(json.dumps({"macs": 2}))
            cells.append(Cell("eyes", column, fold, folder))
    return cells


def test_images_of_all_folds_are_one_set(tmp_path: Path) -> None:
    summary = summarise(PLAN, ["3a", "3b"], write_folds(tmp_path), "whole")
    whole, half = summary[summary["table"] == "3a"].to_dict("records")
    assert whole["mean"] == pytest.approx(0.7)  # of five images, not of two folds
    assert (half["images"], half["groups"], half["seeds"]) == (5, 5, 2)
    assert half["difference"] == pytest.approx(0.18)
    assert half["mean"] - whole["mean"] == pytest.approx(half["difference"])
    assert half["difference_low"] < 0.18 < half["difference_high"]
    assert any("the 2 seeds are folds" in line for line in feet(PLAN, summary))


def test_seeds_that_share_an_image_are_no_folds(tmp_path: Path) -> None:
    summary = summarise(PLAN, ["3a"], write_folds(tmp_path, overlap=True), "whole")
    half = summary.to_dict("records")[1]
    assert half["not_compared"] == "the images are not the same"
    assert not any("folds" in line for line in feet(PLAN, summary))


def test_other_folds_are_not_compared(tmp_path: Path) -> None:
    cells = [cell for cell in write_folds(tmp_path) if (cell.column, cell.seed) != ("half", 1)]
    half = summarise(PLAN, ["3a"], cells, "whole").to_dict("records")[1]
    assert half["not_compared"] == "the images are not the same"
