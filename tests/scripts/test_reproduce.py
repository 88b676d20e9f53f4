import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
PLAN = {
    "rows": {"network_name": ["A", "B"]},
    "columns": {"arm": ["original", "positive"]},
    "tables": {"1": {"title": "Dice", "metric": "dice", "published": {"A": [0.5, 0.6], "B": [0.7, None]}}},
    "notes": ["a note"],
}


@pytest.fixture(scope="module")
def reproduce() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reproduce", ROOT / "scripts" / "reproduce.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reproduce"] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def cells(reproduce: ModuleType, tmp_path: Path) -> list:
    """Network A, two arms, two seeds, four images: positive is better by 0.1, 0.2, 0.1 and 0.2."""
    found = []
    for seed in (0, 1):
        for arm, gains in (("original", [0, 0, 0, 0]), ("positive", [0.1, 0.2, 0.1, 0.2])):
            folder = tmp_path / f"A_{arm}_{seed}"
            (folder / "test").mkdir(parents=True)
            values = [0.4 + 0.02 * seed + gain for gain in gains]
            pd.DataFrame({"image": list("wxyz"), "dice": values}).to_csv(folder / "test" / "per_image.csv", index=False)
            found.append(reproduce.Cell("A", arm, seed, folder))
    return found


def test_number_lists_are_read_as_people_write_them(reproduce: ModuleType) -> None:
    assert reproduce.parse_numbers("1-4") == ["1", "2", "3", "4"]
    assert reproduce.parse_numbers((0, 2)) == ["0", "2"]
    assert reproduce.parse_numbers(3) == ["3"]
    with pytest.raises(ValueError, match="'first'"):
        reproduce.parse_numbers("first")


def test_means_spreads_and_paired_differences_are_those_counted_by_hand(reproduce: ModuleType, cells: list) -> None:
    summary = reproduce.summarise(PLAN, ["1"], cells, "original").set_index("arm")
    assert summary.loc["original", "mean"] == pytest.approx(0.41)
    assert summary.loc["original", "std"] == pytest.approx(0.02 / 2**0.5)
    assert pd.isna(summary.loc["original", "difference"])
    positive = summary.loc["positive"]
    assert positive["difference"] == pytest.approx(0.15)
    assert 0.0999 < positive["low"] < 0.15 < positive["high"] < 0.2001
    assert positive["published"] == 0.6
    assert positive["images"] == 4


def test_tables_and_plot_show_measured_beside_published(reproduce: ModuleType, cells: list, tmp_path: Path) -> None:
    summary = reproduce.summarise(PLAN, ["1"], cells, "original")
    text = reproduce.as_markdown(PLAN, summary, "heading")
    assert "| A | 0.5000 | 0.4100 ± 0.0141 | 0.6000 | 0.5600 ± 0.0141 | +0.1500 [" in text
    assert "- a note" in text
    reproduce.plot(PLAN, summary, "heading", tmp_path / "tables.png")
    assert (tmp_path / "tables.png").stat().st_size > 5000


def test_unknown_names_and_knobs_are_refused_before_anything_runs(reproduce: ModuleType, tmp_path: Path) -> None:
    gaze = "gaze_polyp_segmentation"
    for arguments, message in (
        ({"bundle": "absent"}, "'absent'"),
        ({"bundle": gaze, "scale": "huge"}, "'huge'"),
        ({"bundle": gaze, "tables": 9}, "table 9"),
        ({"bundle": gaze, "networks": "UNet,SegNet"}, "'SegNet'"),
        ({"bundle": gaze, "learning_rat": 0.1}, "--learning_rat"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            reproduce.reproduce(**arguments, output_dir=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_small_grid_runs_is_resumed_and_keeps_its_cells(
    reproduce: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = {
        "scale": "smoke",
        "networks": "UNet",
        "columns": "original,positive",
        "seeds": 0,
        "tables": "1,4",
        "output_dir": str(tmp_path),
        "tracking": "none",
        "cache_rate": 0.0,
    }
    reproduce.reproduce("gaze_polyp_segmentation", **arguments)
    results = sorted(tmp_path.glob("*/result.json"))
    assert [p.parent.name for p in results] == ["UNet_original_seed0", "UNet_positive_seed0"]
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} == {"tables.csv", "tables.md", "tables.png"}
    table = pd.read_csv(tmp_path / "tables.csv")
    assert set(table["metric"]) == {"Dice", "Recall"}
    assert table["mean"].between(0, 1).all()

    before = [p.stat().st_mtime_ns for p in results]
    reproduce.reproduce("gaze_polyp_segmentation", **arguments)
    assert before == [p.stat().st_mtime_ns for p in results]
    with pytest.raises(SystemExit, match="1 of 1 cells failed"):
        reproduce.reproduce("gaze_polyp_segmentation", **{**arguments, "columns": "original", "learning_rate": 0.5})
    assert "was run with" in capsys.readouterr().err
    assert json.loads(results[0].read_text())["knobs"]["arm"] == "original"
