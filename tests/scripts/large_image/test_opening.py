from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from clinbundles.scripts.large_image.image import LargeImage
from clinbundles.scripts.large_image.opening import open_large_image

PIXELS = np.random.default_rng(0).integers(0, 255, (150, 170, 3), dtype=np.uint8)


def test_what_is_no_plane_image_is_refused_by_name(tmp_path: Path) -> None:
    stack = PIXELS.transpose(2, 0, 1).copy()
    tifffile.imwrite(tmp_path / "z.tif", stack, photometric="minisblack", metadata={"axes": "ZYX"})
    tifffile.imwrite(tmp_path / "p.tif", PIXELS[..., 0], colormap=np.zeros((3, 256), np.uint16))
    (tmp_path / "text.tif").write_text("no image")
    (tmp_path / "cut.tif").write_bytes(b"II*\0")
    (tmp_path / "folder").mkdir()
    zarr.create_group(tmp_path / "group.zarr")
    for name, message in {
        "z.tif": r"z.tif: axes are ZYX with shape \(3, 150, 170\), expected YX",
        "p.tif": "p.tif: photometric interpretation is PALETTE",
        "text.tif": "text.tif: neither a TIFF file nor a zarr folder",
        "cut.tif": "cut.tif: neither a TIFF file nor a zarr folder",
        "folder": "folder: the folder is no zarr array or group",
        "group.zarr": "group.zarr: the zarr group has no multiscales metadata",
    }.items():
        with pytest.raises(ValueError, match=message):
            open_large_image(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"absent.tif: no such file"):
        open_large_image(tmp_path / "absent.tif")


def test_the_fingerprint_changes_with_the_file(tmp_path: Path) -> None:
    seen = set()
    for value in (0, 1):
        tifffile.imwrite(tmp_path / "image.tif", PIXELS + np.uint8(value), tile=(64, 64), photometric="rgb")
        with open_large_image(tmp_path / "image.tif") as image:
            assert isinstance(image, LargeImage)
            seen.add(image.fingerprint)
    assert len(seen) == 2
