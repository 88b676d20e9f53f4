"""Tests of the readers of slices and label maps."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from clinbundles.transforms.readers.slices import (
    LabelMapReader,
    SliceReader,
    check_datalist,
    is_volume,
    list_volumes,
    read_datalist,
    read_grey,
    read_label_map,
)

NAMES = ("background", "body", "left lung")


def save(path: Path, values: np.ndarray, mode: str | None = None) -> Path:
    Image.fromarray(values).convert(mode or Image.fromarray(values).mode).save(path)
    return path


def test_a_grey_image_is_a_volume_of_one_slice_without_a_channel_axis(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    reader = SliceReader()
    image, meta = reader.get_data(reader.read(save(tmp_path / "a.png", values)))
    assert np.array_equal(image[..., 0], values)
    assert image.shape == (3, 4, 1)
    assert np.isnan(meta["original_channel_dim"])
    assert meta["spatial_shape"].tolist() == [3, 4, 1]


def test_a_grey_image_saved_in_colour_is_grey_and_a_coloured_one_is_refused(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(read_grey(save(tmp_path / "a.png", values, "RGB")), values)
    coloured = np.zeros((3, 4, 3), np.uint8)
    coloured[..., 0] = 200
    with pytest.raises(ValueError, match=r"a.png: pixel mode 'RGB', expected a grey image of 8 bits"):
        read_grey(save(tmp_path / "a.png", coloured))
    with pytest.raises(ValueError, match="pixel mode 'I;16', expected a grey image of 8 bits"):
        read_grey(save(tmp_path / "b.png", np.full((3, 4), 500, np.uint16)))


def test_a_label_map_of_a_palette_image_is_its_numbers(tmp_path: Path) -> None:
    values = np.array([[0, 1], [2, 1]], np.uint8)
    image = Image.fromarray(values)
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_label_map(tmp_path / "a.png", NAMES), values)
    assert LabelMapReader(NAMES).read(tmp_path / "a.png").shape == (2, 2, 1)


def test_a_black_and_white_mask_is_refused_as_a_label_map_of_classes(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.array([[0, 255]], np.uint8))
    with pytest.raises(
        ValueError, match="holds the value 255, and there are 3 classes, 0 to 2: background, body, left"
    ):
        read_label_map(path, NAMES)


def write_ct(path: Path, affine: np.ndarray) -> np.ndarray:
    """Write a volume of a block of water in air, a corner of it bright; return its HU (x, y, z)."""
    hu = np.full((12, 10, 4), -1000, np.int16)
    hu[2:10, 2:8] = 0
    hu[2, 2, 0] = 600
    nibabel.save(nibabel.Nifti1Image(hu, affine), path)
    return hu


def test_a_ct_volume_becomes_grey_by_its_window_with_its_own_axes(tmp_path: Path) -> None:
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    hu = write_ct(tmp_path / "a.nii.gz", affine)
    reader = SliceReader(window_hu=(-1000, 600))
    grey, meta = reader.get_data(reader.read(tmp_path / "a.nii.gz"))
    assert np.allclose(grey, (hu + 1000.0) / 1600 * 255)
    assert np.allclose(meta["affine"], affine)
    narrow, _ = SliceReader(window_hu=(-100, 100)).get_data(reader.read(tmp_path / "a.nii.gz"))
    assert sorted(np.unique(narrow)) == pytest.approx([0, 127.5, 255])


def test_a_folder_lists_pictures_and_volumes_and_each_folder_of_dicom_once(tmp_path: Path) -> None:
    save(tmp_path / "b.png", np.zeros((3, 4), np.uint8))
    write_ct(tmp_path / "a.nii.gz", np.eye(4))
    for name in ("1.dcm", "2.dcm"):
        (tmp_path / "series").mkdir(exist_ok=True)
        (tmp_path / "series" / name).write_bytes(bytes(128) + b"DICM")
    (tmp_path / "notes").mkdir()
    assert [Path(item["image"]).name for item in list_volumes(str(tmp_path))] == ["a.nii.gz", "b.png", "series"]
    assert list_volumes(str(tmp_path / "series")) == [{"image": str(tmp_path / "series")}]
    assert is_volume(tmp_path / "series")
    assert is_volume(tmp_path / "a.nii.gz")
    assert not is_volume(tmp_path / "b.png")
    with pytest.raises(FileNotFoundError, match="holds no image"):
        list_volumes(str(tmp_path / "notes"))
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        list_volumes(str(tmp_path / "none"))


def test_volumes_that_lie_deeper_are_counted_in_the_refusal(tmp_path: Path) -> None:
    (tmp_path / "patient" / "study" / "series").mkdir(parents=True)
    for name in ("1.dcm", "2.dcm"):
        (tmp_path / "patient" / "study" / "series" / name).write_bytes(bytes(128) + b"DICM")
    with pytest.raises(FileNotFoundError, match=r"but 2 lie deeper, such as patient/study/series/1\.dcm: give"):
        list_volumes(str(tmp_path))
    assert len(list_volumes(str(tmp_path / "patient" / "study"))) == 1


def test_a_datalist_of_other_classes_or_another_window_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "datalist.json"
    labels = {"10": "k", "0": "background", "1": "body", "2": "left lung"}
    path.write_text(json.dumps({"labels": labels, "window_hu": [-1000, 600]}))
    check_datalist(path, ["background", "body", "left lung", "k"], [-1000, 600])
    with pytest.raises(ValueError, match="its classes are background, body, left lung, k, those of the network backgr"):
        check_datalist(path, NAMES)
    with pytest.raises(ValueError, match=r"window \[-1000, 600\] HU, the network \[-160, 240\]"):
        check_datalist(path, ["background", "body", "left lung", "k"], [-160, 240])
    path.write_text(json.dumps({"labels": {str(k): name for k, name in enumerate(NAMES)}}))
    check_datalist(path, NAMES, [-160, 240])
    path.write_text("{}")
    with pytest.raises(ValueError, match="its classes are not said"):
        check_datalist(path, NAMES)


def test_a_patient_or_an_image_in_two_splits_is_refused_without_a_name(tmp_path: Path) -> None:
    path = tmp_path / "datalist.json"
    items = [{"image": f"{k}.png", "group": f"Jane-{k // 2}"} for k in range(4)]
    path.write_text(json.dumps({"skipped": [{"series": "p9"}], "training": items[:2], "test": items[2:]}))
    assert read_datalist(path)["test"] == items[2:]
    for spoiled, what in (({"group": "Jane-0"}, "one patient or group"), ({"image": "1.png"}, "one image")):
        path.write_text(json.dumps({"training": items[:2], "test": [items[2], {**items[3], **spoiled}]}))
        with pytest.raises(
            ValueError, match=rf"item [01] of its split 'training' and item 1 of 'test' are of {what}"
        ) as e:
            read_datalist(path)
        assert "Jane" not in str(e.value)
    path.write_text(json.dumps({"training": [{"image": "0.png"}], "test": [{"image": "1.png", "group": None}]}))
    read_datalist(path)


@pytest.mark.parametrize("window", [[600, -1000], [1], None, "lung", [0, float("nan")], ["a", "b"], 5])
def test_what_is_no_window_is_refused(window: Any) -> None:
    with pytest.raises(ValueError, match=r"window_hu is .*, expected two HU, low and high"):
        SliceReader(window)
