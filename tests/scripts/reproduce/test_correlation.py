import json
from pathlib import Path

import numpy as np
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


def test_ten_columns_have_an_interval_and_their_seeds_do_not_narrow_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = {f"c{k}": (k / 10, 1 - k / 10 + 0.2 * float(rng.normal())) for k in range(10)}
    lines = []
    for seeds in (1, 3):
        (tmp_path / str(seeds)).mkdir()
        (line,) = correlate(PLAN, ["1"], write(tmp_path / str(seeds), values, seeds=seeds))
        assert (line["n"], line["columns"]) == (10 * seeds, 10)
        assert -1 <= line["low"] < line["value"] < line["high"] < 0
        lines.append(line)
    widths = [line["high"] - line["low"] for line in lines]
    assert widths[1] == pytest.approx(widths[0], rel=0.2)
    assert as_notes(lines)[1].endswith("] over 10 columns.")
    (result,) = as_results(lines[1:], {"CT": "a run"})
    assert result["metrics"]["val_miou"]["value"] == pytest.approx(lines[1]["value"], abs=1e-4)
    assert result["note"] == "Spearman's rank correlation over 30 networks"


def test_many_seeds_of_few_columns_have_no_interval(tmp_path: Path) -> None:
    cells = write(tmp_path, {"a": (0.1, 0.9), "b": (0.3, 0.6), "c": (0.6, 0.3), "d": (0.9, 0.1)}, seeds=3)
    (line,) = correlate(PLAN, ["1"], cells)
    assert (line["n"], "low" in line) == (12, False)


def test_too_few_networks_equal_ranks_and_other_plans_have_none(tmp_path: Path) -> None:
    cells = write(tmp_path, {"a": (0.1, 0.5), "b": (0.2, 0.5), "c": (0.3, 0.5)})
    assert correlate({"tables": PLAN["tables"]}, ["1"], cells) == []
    assert correlate(PLAN, ["1"], cells[:2]) == []
    (line,) = correlate(PLAN, ["1"], cells)
    assert line["value"] != line["value"]
    assert as_results([line], {"CT": "a run"}) == []
