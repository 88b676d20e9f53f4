from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from clinbundles.scripts.large_image.image import LargeImage
from clinbundles.scripts.large_image.opening import open_large_image

PIXELS = np.random.default_rng(0).integers(0, 255, (150, 170, 3), dtype=np.uint8)


def test_a_broken_tile_is_reported_with_its_place(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "image.tif", PIXELS, tile=(64, 64), compression="deflate", photometric="rgb")
    with tifffile.TiffFile(tmp_path / "image.tif") as file:
        offset = file.pages[0].dataoffsets[4]  # type: ignore[union-attr]
    content = bytearray((tmp_path / "image.tif").read_bytes())
    content[offset : offset + 500] = bytes(500)
    (tmp_path / "image.tif").write_bytes(content)
    with open_large_image(tmp_path / "image.tif") as image:
        with pytest.raises(ValueError, match="rows 70 to 90, columns 90 to 120 cannot be read"):
            image.read(70, 90, height=20, width=30)
        assert image.read(0, 0, height=9, width=9).shape == (3, 9, 9), "the other tiles are whole"


def test_axes_that_do_not_belong_to_the_array_are_refused() -> None:
    for axes, message in {"CZYX": "i: axes are CZYX, the array has shape", "ZYX": "i: axes are ZYX with shape"}.items():
        with pytest.raises(ValueError, match=message):
            LargeImage(zarr.zeros((3, 8, 8)), axes, name="i")
