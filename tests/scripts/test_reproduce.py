import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reproduce() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reproduce", ROOT / "scripts" / "reproduce.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reproduce"] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def test_number_lists_are_read_as_people_write_them(reproduce: ModuleType) -> None:
    assert reproduce.parse_numbers("1-4") == ["1", "2", "3", "4"]
    assert reproduce.parse_numbers((0, 2)) == ["0", "2"]
    assert reproduce.parse_numbers(3) == ["3"]
    with pytest.raises(ValueError, match="'first'"):
        reproduce.parse_numbers("first")


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
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} == {
        "tables.csv",
        "tables.md",
        "tables.png",
        "results.json",
    }
    table = pd.read_csv(tmp_path / "tables.csv")
    assert set(table["metric"]) == {"Dice", "Recall"}
    assert table["mean"].between(0, 1).all()

    result = json.loads((tmp_path / "results.json").read_text())[0]
    assert result["gaze"] == "simulated"
    assert "20/6/6 images" in result["split"]
    assert set(result["metrics"]) == {"val_mean_dice", "val_mean_recall"}
    assert str(tmp_path) not in json.dumps(result)

    before = [p.stat().st_mtime_ns for p in results]
    reproduce.reproduce("gaze_polyp_segmentation", **arguments)
    assert before == [p.stat().st_mtime_ns for p in results]
    with pytest.raises(SystemExit, match="1 of 1 cells failed"):
        reproduce.reproduce("gaze_polyp_segmentation", **{**arguments, "columns": "original", "learning_rate": 0.5})
    assert "was run with" in capsys.readouterr().err
    assert json.loads(results[0].read_text())["knobs"]["arm"] == "original"
