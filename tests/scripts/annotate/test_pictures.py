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


def test_a_box_at_the_edge_has_a_picture_too(dim: Path) -> None:
    assert as_pixels(crop_of(dim, [0, 0, 10, 5], (0, 0))).shape == (CROP_PX, CROP_PX, 3)


def test_the_whole_image_has_the_box_on_it(dim: Path) -> None:
    picture = as_pixels(overview_of(dim, [30, 40, 20, 20]))
    assert picture.shape == (320, 256, 3)
    places = np.argwhere(abs(picture - [255, 225, 0]).sum(-1) < 40)
    assert places.mean(axis=0) == pytest.approx([50 * 3.2, 40 * 3.2], abs=3)
