import json
from pathlib import Path

import pytest

from clinbundles.scripts.reproduce.correlation import as_notes, as_results, correlate
from clinbundles.scripts.reproduce.tables import Cell

PLAN = {
    "tables": {"1": {"title": "mIoU", "metric": "val_miou"}},
    "rank_correlation": {"suffix": ", on test-G", "name": "rank correlation of test-G with test-R"},
}


def write(folder: Path, values: dict[str, tuple[float, float]], seeds: int = 1) -> list[Cell]:
    cells = []
    for column, pair in values.items():
        for suffix, value in zip(("", ", on test-G"), pair, strict=True):
            for seed in range(seeds):
                cell = Cell("CT", f"{column}{suffix}", seed, folder / f"{column}{suffix}{seed}")
                cell.folder.mkdir()
                (cell.folder / "result.json").write_text(json.dumps({"figures": {"val_miou": value + seed / 100}}))
                cells.append(cell)
    return cells


def test_the_order_alone_counts(tmp_path: Path) -> None:
    cells = write(tmp_path, {"a": (0.1, 0.70), "b": (0.2, 0.71), "c": (0.9, 0.72)})
    (line,) = correlate(PLAN, ["1"], cells)
    assert (line["value"], line["n"]) == (pytest.approx(1), 3)
    assert "low" not in line
    (note,) = as_notes([line])
    assert note == "CT: rank correlation of test-G with test-R, val_miou of 3 networks: 1.00."


def test_a_swapped_order_is_negative_and_ten_networks_have_an_interval(tmp_path: Path) -> None:
    cells = write(tmp_path, {"a": (0.1, 0.9), "b": (0.3, 0.6), "c": (0.6, 0.3), "d": (0.9, 0.1)}, seeds=3)
    (line,) = correlate(PLAN, ["1"], cells)
    assert line["n"] == 12
    assert -1 <= line["low"] < line["value"] < line["high"] < 0
    (result,) = as_results([line], {"CT": "a run"})
    assert result["metrics"]["val_miou"]["value"] == pytest.approx(line["value"], abs=1e-4)
    assert result["note"] == "Spearman's rank correlation over 12 networks"


def test_too_few_networks_equal_ranks_and_other_plans_have_none(tmp_path: Path) -> None:
    cells = write(tmp_path, {"a": (0.1, 0.5), "b": (0.2, 0.5), "c": (0.3, 0.5)})
    assert correlate({"tables": PLAN["tables"]}, ["1"], cells) == []
    assert correlate(PLAN, ["1"], cells[:2]) == []
    (line,) = correlate(PLAN, ["1"], cells)
    assert line["value"] != line["value"]
    assert as_results([line], {"CT": "a run"}) == []
