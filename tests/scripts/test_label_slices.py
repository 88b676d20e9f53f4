"""Tests of ``clinbundles label-slices``: label maps from files are checked, automatic ones are named so."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clinbundles.scripts.label_slices import label


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two slices of an ellipse of tissue with two of air, as HU of -1000 to 600."""
    y, x = np.mgrid[:64, :64]
    tissue = ((y - 32) / 20) ** 2 + ((x - 32) / 28) ** 2 < 1
    air = sum((((y - 32) / 11) ** 2 + ((x - middle) / 8) ** 2 < 1) for middle in (20, 44)) > 0
    hu = np.where(tissue, 40, -1000).astype(float)
    hu[air] = -850
    (tmp_path / "images").mkdir()
    for k in range(2):
        Image.fromarray(((hu + 1000) / 1600 * 255).astype(np.uint8)).save(tmp_path / "images" / f"{k:06d}.png")
    items = [{"image": f"images/{k:06d}.png", "seed": k} for k in range(2)]
    (tmp_path / "datalist.json").write_text(json.dumps({"training": items[:1], "validation": items[1:]}))
    return tmp_path


def content(folder: Path) -> dict:
    return json.loads((folder / "datalist.json").read_text())


def draw(folder: Path, values: np.ndarray, name: str) -> None:
    (folder / "labels").mkdir(exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(folder / "labels" / name)


def test_automatic_labels_find_both_lungs_on_their_sides_and_say_what_they_are(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    label(str(folder), by="automatic")
    assert "slices body in " in capsys.readouterr().out
    classes = np.asarray(Image.open(folder / "labels" / "000000.png"))
    assert classes[0, 0] == 0
    assert classes[32, 32] == 1
    assert classes[32, 44] == 2  # the left lung is on the right of the picture
    assert classes[32, 20] == 3
    after = content(folder)
    assert after["labeller"] == "automatic (HU threshold)"
    assert after["window_hu"] == [-1000, 600]
    assert after["labels"] == {"0": "background", "1": "body", "2": "left lung", "3": "right lung"}
    assert after["training"][0]["label"] == "labels/000000.png"
    assert after["validation"][0]["seed"] == 1


def test_automatic_labels_are_of_ct_and_of_its_window(folder: Path) -> None:
    with pytest.raises(
        ValueError, match="--class_names are background, nucleus: automatic labels are background, body"
    ):
        label(str(folder), by="automatic", class_names="background,nucleus")
    with pytest.raises(ValueError, match="--window_hu is 600,-1000: expected two numbers that rise"):
        label(str(folder), by="automatic", window_hu="600,-1000")
    with pytest.raises(ValueError, match="--window_hu is lung: expected two numbers that rise"):
        label(str(folder), by="automatic", window_hu="lung")


def test_label_maps_of_any_tool_are_taken_by_the_name_of_their_slice(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    draw(folder, np.eye(64), "000000.png")
    draw(folder, np.zeros((64, 64)), "000001.tif")
    label(str(folder), class_names="background,nucleus")
    after = content(folder)
    assert [after[split][0]["label"] for split in ("training", "validation")] == [
        "labels/000000.png",
        "labels/000001.tif",
    ]
    assert after["labels"] == {"0": "background", "1": "nucleus"}
    assert after["labeller"] == "files"
    said = capsys.readouterr().out
    assert "1 label maps hold background alone: 000001" in said
    assert "2 slices came in, 2 have a label map" in said


def test_a_person_who_drew_the_label_maps_is_named_where_somebody_says_so(folder: Path) -> None:
    for name in ("000000.png", "000001.png"):
        draw(folder, np.eye(64), name)
    label(str(folder), class_names="background,nucleus", labeller="people")
    assert content(folder)["labeller"] == "people"
    assert "window_hu" not in content(folder)
    with pytest.raises(ValueError, match="--labeller people is of label maps from files: automatic ones say"):
        label(str(folder), by="automatic", labeller="people")
    with pytest.raises(ValueError, match="--labeller is empty"):
        label(str(folder), class_names="background,nucleus", labeller=" ")


def test_automatic_labels_do_not_take_the_place_of_those_that_somebody_drew(folder: Path) -> None:
    draw(folder, np.eye(64), "000001.png")
    before = (folder / "labels" / "000001.png").read_bytes()
    with pytest.raises(ValueError, match=r"000001.png: is there already, and automatic label maps would take its"):
        label(str(folder), by="automatic")
    assert [path.name for path in (folder / "labels").iterdir()] == ["000001.png"]
    assert (folder / "labels" / "000001.png").read_bytes() == before
    (folder / "labels" / "000001.png").unlink()
    for _ in range(2):  # but that of earlier automatic ones
        label(str(folder), by="automatic")


def test_files_that_are_of_no_slice_are_named(folder: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("000000.png", "000001.png", "000077.png", "tumour.png"):
        draw(folder, np.eye(64), name)
    label(str(folder), class_names="background,nucleus")
    assert "2 files in" in (said := capsys.readouterr().out)
    assert "are of no slice of the list: 000077.png, tumour.png" in said


@pytest.mark.parametrize("names", ["background", "background,,a", "background,a,a", ["background", " "]])
def test_names_of_classes_differ_and_are_not_empty(folder: Path, names: str | list[str]) -> None:
    with pytest.raises(ValueError, match=r"--class_names are background.*: expected two or more that differ"):
        label(str(folder), class_names=names)


def missing(folder: Path) -> None:
    draw(folder, np.eye(64), "000000.png")


def other_size(folder: Path) -> None:
    for name in ("000000.png", "000001.png"):
        draw(folder, np.eye(32), name)


def other_values(folder: Path) -> None:
    for name in ("000000.png", "000001.png"):
        draw(folder, np.eye(64) * 255, name)


def all_empty(folder: Path) -> None:
    for name in ("000000.png", "000001.png"):
        draw(folder, np.zeros((64, 64)), name)


def twice(folder: Path) -> None:
    for name in ("000000.png", "000000.tif", "000001.png"):
        draw(folder, np.eye(64), name)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (missing, FileNotFoundError, "1 of 2 slices have no label map, the first is 000001; expected 000001.png"),
        (other_size, ValueError, "000000.png: is 32x32 px, its slice 64x64"),
        (other_values, ValueError, "000000.png: holds the value 255, and there are 2 classes"),
        (all_empty, ValueError, "all 2 label maps hold background alone"),
        (twice, ValueError, "000000.png and 000000.tif are both of the slice 000000"),
    ],
)
def test_label_maps_that_do_not_fit_are_refused_and_the_list_stays(
    folder: Path, spoil: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    before = content(folder)
    spoil(folder)
    with pytest.raises(error, match=message):
        label(str(folder), class_names="background,nucleus")
    assert content(folder) == before


def test_a_folder_without_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"datalist.json: no such file; clinbundles run ct_datasetgan generate"):
        label(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "is no datalist, which has splits by name"),
        ('{"training": [{"img": "a"}]}', "item 0 of its split 'training' has no image"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "datalist.json").write_text(text)
    with pytest.raises(ValueError, match=f"datalist.json: {message}"):
        label(str(tmp_path))
