import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clinbundles.scripts import cli


def run(*words: object) -> None:
    cli.main(["score", *map(str, words)])


def test_label_maps_come_out_as_a_table_with_intervals(
    data: Path, save_maps: Callable, capsys: pytest.CaptureFixture
) -> None:
    folder = save_maps("maps", shift=1)
    run(folder, "--datalist", data / "datalist.json")
    said = capsys.readouterr().out
    assert "12 images came in, 12 can be scored, 0 are left out" in said
    assert "label maps have no scores" in said
    assert "| F1 | 1.000 | 0.757 to 1.000 |" in said  # Wilson, of 12 images
    content = json.loads((folder / "score" / "score.json").read_text())
    assert content["images"] == 12
    ap = content["scores"]["mask_ap"]
    assert 0.3 < ap["low"] <= ap["value"] <= ap["high"] < 1
    rows = list(csv.DictReader((folder / "score" / "per_image.csv").read_text().splitlines()))
    assert [row["cells"] for row in rows[:2]] == ["3", "4"]
    assert (rows[0]["hits"], rows[0]["misses"], rows[0]["f1"]) == ("3", "0", "1.0")


def test_two_programs_are_compared_on_the_images_that_both_have(
    data: Path, save_maps: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    worse, better = save_maps("worse", missing=1), save_maps("better", ending=".tif")
    (better / "im03.tif").unlink()
    out = tmp_path / "out"
    run(worse, "--datalist", data / "datalist.json", "--against", better, "--output_dir", out)
    said = capsys.readouterr().out
    assert f"{better}: 12 images came in, 11 can be scored, 1 are left out" in said
    assert "im03.png: has no label map" in said
    assert "\n11 images\n" in said
    f1 = json.loads((out / "score.json").read_text())["scores"]["f1"]
    assert f1["other"]["value"] == 1
    assert f1["ratio"]["low"] < f1["ratio"]["value"] == f1["value"] < f1["ratio"]["high"] < 1
    assert f1["difference"]["value"] == pytest.approx(f1["value"] - 1, abs=1e-4)
    assert f1["difference"]["p"] == round(2 / 2**11, 4)  # worse on each of eleven images


def test_a_program_is_as_good_as_itself(data: Path, save_maps: Callable) -> None:
    folder = save_maps("maps", shift=1)
    run(folder, "--datalist", data / "datalist.json", "--against", folder)
    ratio = json.loads((folder / "score" / "score.json").read_text())["scores"]["mask_ap"]["ratio"]
    assert (ratio["value"], ratio["low"], ratio["high"]) == (1, 1, 1)


def test_a_missing_label_map_of_an_evaluation_is_told(
    data: Path, save_maps: Callable, capsys: pytest.CaptureFixture
) -> None:
    maps, evaluation = save_maps("maps"), data.parent / "evaluation"
    evaluation.mkdir()
    save_maps("evaluation/label_maps", ending=".tif")
    content = json.loads((data / "coco.json").read_text())
    content["annotations"] = [entry | {"score": 0.5} for entry in content["annotations"]]
    (evaluation / "detections.json").write_text(json.dumps(content))
    (evaluation / "label_maps" / "im00.tif").unlink()
    run(maps, "--datalist", data / "datalist.json", "--against", evaluation)
    said = capsys.readouterr().out
    assert "1 images have no label map: F1, TP/(TP+FP+FN) and panoptic quality are left out" in said
    assert "| F1 | 1.000 | 0.757 to 1.000 |  |  |  |  |" in said


def test_masks_of_all_cells_in_one_number_are_told(
    data: Path, save_maps: Callable, capsys: pytest.CaptureFixture
) -> None:
    folder = save_maps("maps", ending=".npy")
    for path in folder.iterdir():
        np.save(path, np.load(path) > 0)
    run(folder, "--datalist", data / "datalist.json")
    assert "no label map has more than one cell" in capsys.readouterr().out


def test_a_folder_without_anything_to_score_ends_in_a_sentence(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as ended:
        run(tmp_path / "empty", "--datalist", data / "datalist.json")
    assert "holds nothing for the test split of" in str(ended.value)
    assert "12 are left out" in capsys.readouterr().out
    assert not (tmp_path / "empty" / "score").exists()


def test_few_images_have_a_t_interval_and_it_says_so(
    data: Path, save_maps: Callable, capsys: pytest.CaptureFixture
) -> None:
    folder = save_maps("maps", ending=".png")
    for path in sorted(folder.iterdir())[5:]:
        path.unlink()
    run(folder, "--datalist", data / "datalist.json")
    said = capsys.readouterr().out
    assert "t interval over 5 images or groups" in said
    assert "| F1 | 1.000 | 0.566 to 1.000 |" in said
