"""Tests of the readers of slices and label maps."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clinbundles.transforms.readers.slices import LabelMapReader, SliceReader, read_grey, read_label_map

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
