import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clinbundles.scripts.annotate.pictures import CROP_PX, crop_of, display_pixels, overview_of


def as_pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content))).astype(int)


@pytest.fixture
def dim(tmp_path: Path) -> Path:
    """A dim 16-bit image with a square that is a little brighter."""
    values = np.full((100, 80), 300, dtype=np.uint16)
    values[40:60, 30:50] = 340
    Image.fromarray(values).save(tmp_path / "dim.png")
    return tmp_path / "dim.png"


def test_a_dim_image_is_stretched_to_be_seen(dim: Path) -> None:
    pixels = np.asarray(display_pixels(dim))
    assert pixels.shape == (100, 80, 3)
    assert (pixels[50, 40].tolist(), pixels[10, 10].tolist()) == ([255] * 3, [0] * 3)


def test_the_cross_leaves_its_point_free_and_the_box_is_drawn(dim: Path) -> None:
    picture = as_pixels(crop_of(dim, [30, 40, 20, 20], (39, 49)))
    assert picture.shape == (CROP_PX, CROP_PX, 3)
    yellow = np.argwhere(abs(picture - [255, 225, 0]).sum(-1) < 40)
    assert len(yellow) > 100
    # The middle of the picture is that of the box; the point is half a pixel of the image before it.
    middle = yellow.mean(axis=0)
    scale = CROP_PX / (2.2 * 20)
    assert middle == pytest.approx([CROP_PX / 2 - scale / 2] * 2, abs=2)
    assert abs(yellow - middle).sum(axis=1).min() > scale * 0.5


def test_a_dim_colour_image_is_stretched_and_keeps_its_hue(tmp_path: Path) -> None:
    values = np.zeros((100, 80, 3), dtype=np.uint8)
    values[40:80, 30:70] = (20, 0, 10)
    Image.fromarray(values).save(tmp_path / "dim.png")
    assert np.asarray(display_pixels(tmp_path / "dim.png"))[50, 50].tolist() == [255, 0, 127]


def test_a_few_bright_pixels_on_an_even_ground_are_seen(tmp_path: Path) -> None:
    values = np.zeros((100, 80), dtype=np.uint16)
    values[40:43, 30:33] = 12
    Image.fromarray(values).save(tmp_path / "spot.png")
    assert np.asarray(display_pixels(tmp_path / "spot.png"))[41, 31].tolist() == [255] * 3


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    values = np.ones((10, 10), dtype=np.float32)
    values[3, 3] = np.nan
    Image.fromarray(values).save(tmp_path / "nan.tif")
    with pytest.raises(ValueError, match=r"nan\.tif: holds values that are not finite"):
        display_pixels(tmp_path / "nan.tif")


@pytest.mark.parametrize("grey", [0, 255])
def test_the_box_and_the_cross_are_seen_on_black_and_on_white(grey: int, tmp_path: Path) -> None:
    values = np.full((100, 80), grey, dtype=np.uint8)
    values[0] = 255 - grey
    Image.fromarray(values).save(tmp_path / "even.png")
    path, box = tmp_path / "even.png", [30.0, 40, 20, 20]
    for content in (crop_of(path, box, (39, 49)), overview_of(path, box)):
        middle = as_pixels(content)[100:].sum(-1)
        assert (abs(middle - 3 * grey) > 380).sum() > 300


def test_a_box_at_the_edge_has_a_picture_too(dim: Path) -> None:
    assert as_pixels(crop_of(dim, [0, 0, 10, 5], (0, 0))).shape == (CROP_PX, CROP_PX, 3)


def test_the_whole_image_has_the_box_on_it(dim: Path) -> None:
    picture = as_pixels(overview_of(dim, [30, 40, 20, 20]))
    assert picture.shape == (320, 256, 3)
    places = np.argwhere(abs(picture - [255, 225, 0]).sum(-1) < 40)
    assert places.mean(axis=0) == pytest.approx([50 * 3.2, 40 * 3.2], abs=3)
