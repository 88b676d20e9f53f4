"""A small picture of a large image with the outline of its mask, to see at a glance what came out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from PIL import Image, PngImagePlugin

from clinbundles.engines.outputs.colors import PREDICTION
from clinbundles.engines.outputs.files import replacing

from .image import LargeImage
from .pyramid import SOFTWARE

LONGEST_SIDE = 1024
_BAND_BYTES = 64e6


def preview_path(result: Path) -> Path:
    """Return where the preview of a result lies: beside it, as <name>_preview.png.

    Raises:
        FileExistsError: something else is there.
    """
    path = result.with_name(f"{result.stem}_preview.png")
    if path.exists() and not _is_own(path):
        raise FileExistsError(f"{path} exists and is no preview of this command: choose another output.")
    return path


def _is_own(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.info.get("Software") == SOFTWARE
    except OSError:
        return False


def write_preview(image: LargeImage, mask: zarr.Group, path: Path, *, intensity_range: tuple[float, float]) -> None:
    """Write an image of at most 1024 px a side as PNG, with the outline of its mask in cyan.

    Args:
        image: the image, at any level of its pyramid; it is read band by band.
        mask: the pyramid of its mask, with levels 0, 1, ….
        path: the file.
        intensity_range: values of the image that become black and white.
    """
    pixels = _reduced(image, *intensity_range)
    pixels[_outline(_mask_of(mask, pixels.shape[:2]))] = PREDICTION
    note = PngImagePlugin.PngInfo()
    note.add_text("Software", SOFTWARE)
    with replacing(path) as partial:
        Image.fromarray(pixels).save(partial, "PNG", pnginfo=note)


def _reduced(image: LargeImage, low: float, high: float) -> np.ndarray:
    """Average blocks of an image to uint8 RGB (h, w, 3), at most 1024 px a side; a grey image is grey in it."""
    channels, height, width = image.shape
    factor = math.ceil(max(height, width) / LONGEST_SIDE)
    rows = max(1, int(_BAND_BYTES / (4 * channels * width * factor)))
    bands = []
    for y in range(0, height, rows * factor):
        region = image.read(y, 0, height=min(rows * factor, height - y), width=width).astype(np.float32)
        padding = [(0, 0), *((0, -size % factor) for size in region.shape[1:])]
        blocks = np.pad(region, padding, mode="edge").reshape(channels, -1, factor, math.ceil(width / factor), factor)
        scaled = (blocks.mean(axis=(2, 4)) - low) * (255 / (high - low))
        bands.append(np.clip(np.rint(np.nan_to_num(scaled)), 0, 255).astype(np.uint8))
    picture = np.concatenate(bands, axis=1)
    return np.moveaxis(picture[[0, 1, 2] if channels >= 3 else [0, 0, 0]], 0, -1).copy()


def _mask_of(mask: zarr.Group, shape: tuple[int, ...]) -> np.ndarray:
    """Take the smallest level of a mask that is not smaller than a picture (h, w), at its size, as bool."""
    levels: list[Any] = []
    while str(len(levels)) in mask and (
        not levels or all(a >= b for a, b in zip(levels[-1].shape, shape, strict=True))
    ):
        levels.append(mask[str(len(levels))])
    fitting = [level for level in levels if all(a >= b for a, b in zip(level.shape, shape, strict=True))]
    values = np.asarray((fitting or levels)[-1][:]) > 0
    at = [np.arange(size) * values.shape[axis] // size for axis, size in enumerate(shape)]
    return values[np.ix_(*at)]


def _outline(mask: np.ndarray) -> np.ndarray:
    """Find the pixels on both sides of a mask's border."""
    padded = np.pad(mask, 1, mode="edge")
    height, width = mask.shape
    around = [padded[y : y + height, x : x + width] for y, x in ((0, 1), (2, 1), (1, 0), (1, 2))]
    return np.logical_or.reduce([mask != each for each in around])
