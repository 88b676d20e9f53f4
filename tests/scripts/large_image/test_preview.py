from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from clinbundles.scripts.large_image.opening import open_large_image
from clinbundles.scripts.large_image.preview import preview_path, write_preview
from clinbundles.scripts.large_image.pyramid import add_levels, create_level

CYAN = (0, 255, 255)


def mask_of(folder: Path, values: np.ndarray) -> zarr.Group:
    group = zarr.create_group(folder)
    height, width = values.shape
    level: Any = create_level(group, "0", (height, width), chunk=512, shard=1024)
    level[:] = values
    add_levels(group, reduce="max")
    return group


@pytest.mark.parametrize("colour", [True, False])
def test_a_large_image_is_shown_small_with_the_outline_of_its_mask_on_it(tmp_path: Path, colour: bool) -> None:
    pixels = np.full((1500, 2100), 200, dtype=np.uint8)
    pixels[:, :600] = 40
    pixels = np.stack([pixels, pixels // 2, pixels // 4], axis=-1) if colour else pixels
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(256, 256), photometric="rgb" if colour else "minisblack")
    mask = np.zeros((1500, 2100), dtype=np.uint8)
    mask[300:900, 1200:1800] = 1
    with open_large_image(tmp_path / "a.tif") as image:
        write_preview(image, mask_of(tmp_path / "m", mask), tmp_path / "p.png", intensity_range=(0, 255))
    with Image.open(tmp_path / "p.png") as preview:
        shown = np.asarray(preview)
    assert shown.shape == (500, 700, 3)  # a third
    is_line = (shown == CYAN).all(axis=-1)
    rows, columns = np.nonzero(is_line)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (99, 300, 399, 600)
    assert not is_line[102:298, 402:598].any()
    bright, dark = ((200, 100, 50), (40, 20, 10)) if colour else ((200,) * 3, (40,) * 3)
    assert (shown[200, 500], shown[10, 10]) == (pytest.approx(bright), pytest.approx(dark))


def test_a_preview_takes_the_place_of_an_earlier_one_and_of_nothing_else(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((100, 100), dtype=np.uint8))
    path = preview_path(tmp_path / "mask.zarr")
    assert path == tmp_path / "mask_preview.png"
    with open_large_image(tmp_path / "a.tif") as image:
        mask = mask_of(tmp_path / "m", np.zeros((100, 100), dtype=np.uint8))
        write_preview(image, mask, path, intensity_range=(0, 255))
    assert preview_path(tmp_path / "mask.zarr") == path
    Image.new("L", (4, 4)).save(path)
    with pytest.raises(FileExistsError, match=r"mask_preview\.png exists and is no preview of this command"):
        preview_path(tmp_path / "mask.zarr")
