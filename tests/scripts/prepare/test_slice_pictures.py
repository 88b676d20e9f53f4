import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clinbundles.scripts.prepare.command import prepare
from clinbundles.scripts.prepare.datalist import items_of
from clinbundles.scripts.prepare.slice_pictures import bowl2018_crops


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(root: Path, data_set: str, **flags: Any) -> dict[str, Any]:
        (tmp_path / "out").mkdir()
        prepare(data_set, str(root), str(tmp_path / "out" / "datalist.json"), **flags)
        return json.loads((tmp_path / "out" / "datalist.json").read_text())

    return run


@pytest.fixture
def bowl(tmp_path: Path) -> Path:
    """Three dark grey images of 48 x 40 px with two nuclei, one bright image and one in colour."""
    root = tmp_path / "bowl" / "stage1_train"
    for k, name in enumerate(("aa", "bb", "cc", "bright", "colour")):
        image = np.full((40, 48, 4), 10 + k, np.uint8)
        image[4:12, 4:12] = 60
        if name == "bright":
            image[:] = 255 - image
        if name == "colour":
            image[..., 0] += 1
        save(root / name / "images" / f"{name}.png", image)
        for number, columns in enumerate((slice(4, 8), slice(8, 12))):
            mask = np.zeros((40, 48), np.uint8)
            mask[4:12, columns] = 255
            save(root / name / "masks" / f"{number}.png", mask)
    return tmp_path / "bowl"


def test_crops_of_dark_grey_images_have_the_union_of_their_nuclei(
    tmp_path: Path, bowl: Path, run: Callable[..., dict[str, Any]]
) -> None:
    content = run(bowl, "bowl2018_crops", image_size=16)
    assert content["labels"] == {"0": "background", "1": "nucleus"}
    assert (content["labeller"], content["licence"], content["stretch"]) == ("people", "CC0", False)
    # Of the six crops of an image one has nuclei; the rest of it is a grey value alone.
    assert content["left_out"] == {"images in colour or of a bright ground": 2, "slices of one grey value": 15}
    items = items_of(content)
    assert sorted(item["group"] for item in items) == ["p01", "p02", "p03"]
    for item in items:
        image, label = (np.asarray(Image.open(tmp_path / "out" / item[key])) for key in ("image", "label"))
        np.testing.assert_array_equal(label, image == 60)
        assert label.sum() == 64


def test_crops_with_hardly_a_nucleus_are_left_out_and_counted(
    tmp_path: Path, bowl: Path, run: Callable[..., dict[str, Any]]
) -> None:
    path = bowl / "stage1_train" / "aa" / "images" / "aa.png"
    pixels = np.asarray(Image.open(path)).copy()
    pixels[20, 20] = 90
    save(path, pixels)
    content = run(bowl, "bowl2018_crops", image_size=16, ratios=[1, 0, 0])
    assert content["left_out"]["crops of which less than 1 % are nucleus"] == 1
    assert len(items_of(content)) == 3


def test_an_image_may_be_stretched_to_all_grey_values(
    tmp_path: Path, bowl: Path, run: Callable[..., dict[str, Any]]
) -> None:
    content = run(bowl, "bowl2018_crops", image_size=16, stretch=True)
    assert content["stretch"] is True
    values = {tuple(np.unique(Image.open(tmp_path / "out" / item["image"]))) for item in items_of(content)}
    assert values == {(0, 255)}


@pytest.fixture
def othnccd(tmp_path: Path) -> Path:
    root = tmp_path / "iq" / "The IQ-OTHNCCD lung cancer dataset"
    for k, name in enumerate(("Normal cases/Normal case (1).jpg", "Malignant cases/Malignant case (1).jpg")):
        grey = np.tile(np.arange(32, dtype=np.uint8) * 7 + k, (32, 1))
        save(root / name, np.repeat(grey[..., None], 3, axis=-1))
    return tmp_path / "iq"


def test_pictures_of_unknown_patients_are_one_group_for_the_test_alone(
    tmp_path: Path, othnccd: Path, run: Callable[..., dict[str, Any]]
) -> None:
    content = run(othnccd, "iq_othnccd", image_size=16)
    assert [len(content[split]) for split in ("test",)] == [2]
    assert "training" not in content
    assert content["split"] == "test"
    assert {item["group"] for item in content["test"]} == {"p01"}
    assert content["labels"] == {}
    assert "window_hu" not in content
    assert np.asarray(Image.open(tmp_path / "out" / content["test"][0]["image"])).shape == (16, 16)


def test_a_picture_in_colour_is_no_slice(othnccd: Path, run: Callable[..., dict[str, Any]]) -> None:
    path = othnccd / "The IQ-OTHNCCD lung cancer dataset" / "Normal cases" / "Normal case (2).jpg"
    save(path, np.stack([np.tile(np.arange(32, dtype=np.uint8) * 7, (32, 1))] * 2 + [np.zeros((32, 32), np.uint8)], -1))
    with pytest.raises(ValueError, match=r"Normal case \(2\)\.jpg: a picture in colour, expected grey"):
        run(othnccd, "iq_othnccd", image_size=16)


def test_133_of_the_180_images_of_the_shared_data_are_dark_and_grey(
    shared_data: Path,
) -> None:
    data = bowl2018_crops(shared_data / "bowl2018")
    assert data.omissions.counts == {"images in colour or of a bright ground": 47}
    assert len({one.patient for one in data.series}) == 133
