"""The way from a path to a large image: TIFF and its pyramids, zarr arrays, OME-NGFF groups."""

from __future__ import annotations

import os
from pathlib import Path

from .image import LargeImage
from .ngff import open_zarr
from .tiff import open_tiff


def open_large_image(path: str | os.PathLike, *, level: int = 0, series: int | None = None) -> LargeImage:
    """Open a TIFF file or zarr folder at one level of its pyramid; nothing of it is decoded yet.

    TIFF: tiled or striped, classic or BigTIFF, OME-TIFF, slides in TIFF form (SVS); an alpha channel is left out.
    Zarr: an array, an OME-NGFF group, or a folder of bioformats2raw with one image, format 2 or 3. Axes: YX, YXC, YXS,
    CYX, SYX; others only with length 1. A zarr array without names of axes is YX, or has 1, 3 or 4 channels.

    Args:
        path: the file or folder.
        level: 0 for full resolution, 1 for the next smaller image of the pyramid, and so on.
        series: which image of a file or folder with several; by default the largest of a TIFF file, the only one of a
            folder.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: not an image of these kinds, no such series or level, axes or colours that are not handled.
    """
    path = Path(path)
    if path.is_dir():
        return open_zarr(path, level=level, series=series)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    return open_tiff(path, level=level, series=series)
