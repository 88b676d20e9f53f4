import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clinbundles.scripts.generated_images import has_split, read_generated, read_image, read_list


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three grey images of 8 x 8 px whose value is their number, as a generated set."""
    for number in range(3):
        Image.fromarray(np.full((8, 8), number, dtype=np.uint8)).save(tmp_path / f"{number}.png")
    items = [{"image": f"{number}.png", "seed": number} for number in range(3)]
    (tmp_path / "datalist.json").write_text(json.dumps({"training": items, "test": []}))
    return tmp_path


def test_images_come_in_order_in_minus_1_to_1(folder: Path) -> None:
    listed = read_generated(folder)
    assert listed.names == ["0.png", "1.png", "2.png"]
    images = listed.read()
    assert images.shape == (3, 1, 8, 8)
    assert torch.allclose(images[:, 0, 0, 0], torch.arange(3) / 127.5 - 1)
    assert torch.equal(listed.read(1, 2), images[1:2])


def test_channels_come_first_and_255_is_1(folder: Path) -> None:
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels[..., 1] = 255
    Image.fromarray(pixels).save(folder / "rgb.png")
    image = read_image(folder / "rgb.png")
    assert image.shape == (3, 4, 6)
    assert image[:, 0, 0].tolist() == [-1, 1, -1]


def test_paths_may_start_from_another_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (folder / "datalist.json").rename(tmp_path / "lists" / "list.json")
    assert len(read_list(tmp_path / "lists" / "list.json", folder, split="training").read()) == 3
    with pytest.raises(FileNotFoundError, match=r"lists/0\.png: no such file"):
        read_list(tmp_path / "lists" / "list.json", split="training").read()


def test_an_image_unlike_the_others_is_refused_by_name(folder: Path) -> None:
    Image.fromarray(np.zeros((8, 9), dtype=np.uint8)).save(folder / "1.png")
    with pytest.raises(ValueError, match=r"1\.png: 9x8 px and 1 channel, expected 8x8 px and 1 channel as of the"):
        read_generated(folder).read()
    with pytest.raises(ValueError, match=r"0\.png: 8x8 px and 1 channel, expected 8x8 px and 3 channels"):
        read_generated(folder).read(0, 1, like=torch.zeros(3, 8, 8))
    Image.fromarray(np.zeros((8, 8), dtype=np.uint16)).save(folder / "1.png")
    with pytest.raises(ValueError, match=r"1\.png: pixel mode 'I;16', expected 8 bits"):
        read_generated(folder).read()


def test_a_generated_set_is_read_with_all_its_splits(folder: Path) -> None:
    splits = {"training": ["1.png"], "validation": ["0.png"], "test": ["2.png"]}
    content = {split: [{"image": name} for name in names] for split, names in splits.items()}
    (folder / "datalist.json").write_text(json.dumps({"name": "made", **content}))
    assert read_generated(folder).names == ["1.png", "0.png", "2.png"]


def test_what_is_no_datalist_is_refused_in_a_sentence(folder: Path) -> None:
    assert has_split(folder / "datalist.json", "training")
    assert not has_split(folder / "datalist.json", "test")
    with pytest.raises(ValueError, match="has no split test, or an empty one"):
        read_list(folder / "datalist.json", split="test")
    with pytest.raises(FileNotFoundError, match=r"gone/datalist\.json: no such file"):
        read_generated(folder / "gone")
    (folder / "datalist.json").write_text('{"training": [{"label": 1}]}')
    with pytest.raises(ValueError, match="item 0 of its split 'training' has no image"):
        read_generated(folder)
    (folder / "datalist.json").write_text("[]")
    with pytest.raises(ValueError, match="is no datalist"):
        read_generated(folder)
    (folder / "datalist.json").write_text("[")
    with pytest.raises(ValueError, match="is not JSON"):
        read_generated(folder)
