"""The pictures of a question: the box magnified with its point, and the whole image with the box."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from clinbundles.transforms.readers.decoding import is_dicom
from clinbundles.transforms.readers.dicom import is_bare_dicom, is_grey, read_image, silent_pydicom
from clinbundles.transforms.readers.dicom_display import colours, rescaled
from clinbundles.transforms.readers.raster import PIL_8BIT_MODES, read_raster

MARGIN = 0.6  # of the box's longer side, around it
CROP_PX, OVERVIEW_PX = 560, 320
Place = tuple[int, int]


@lru_cache(maxsize=8)
def display_pixels(path: Path) -> Image.Image:
    """Read an image to be looked at, RGB, stretched from its 1st percentile to its 99th, all channels alike.

    Raises:
        ValueError: it cannot be read, or holds values that are not finite.
    """
    if is_dicom(path) or is_bare_dicom(path):
        with silent_pydicom():
            values, dataset = read_image(path)
            values = (rescaled if is_grey(dataset) else colours)(path, values, dataset)
    else:
        image = read_raster(path)
        if isinstance(image, Image.Image) and image.mode in PIL_8BIT_MODES:
            image = image.convert("RGB")
        values = np.asarray(image).astype(float)
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: holds values that are not finite.")
    low, high = np.percentile(values, [1, 99])
    if high <= low:  # a few bright spots on an even ground
        low, high = values.min(), values.max()
    stretched = np.clip((values - low) / max(high - low, 1e-9) * 255, 0, 255)
    return Image.fromarray(stretched.astype(np.uint8)).convert("RGB")


def crop_of(path: Path, box: list[float], place: Place) -> bytes:
    """Draw the surroundings of a box, magnified, with the box and a cross whose middle leaves the point free: PNG."""
    image = display_pixels(path)
    x, y, width, height = box
    half = (0.5 + MARGIN) * max(width, height)
    left, top = x + width / 2 - half, y + height / 2 - half
    scale = CROP_PX / (2 * half)
    picture = image.crop((round(left), round(top), round(left + 2 * half), round(top + 2 * half)))
    picture = picture.resize((CROP_PX, CROP_PX), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(picture)
    corners = [(x - left) * scale, (y - top) * scale, (x + width - left) * scale, (y + height - top) * scale]
    _outline(draw, corners, (255, 255, 255))
    middle = ((place[0] + 0.5 - left) * scale, (place[1] + 0.5 - top) * scale)
    gap = max(scale * 0.7, 5)
    for color, thickness in (((0, 0, 0), 5), ((255, 225, 0), 2)):
        for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            ends = [
                middle[0] + dx * gap,
                middle[1] + dy * gap,
                middle[0] + dx * (gap + 26),
                middle[1] + dy * (gap + 26),
            ]
            draw.line(ends, fill=color, width=thickness)
    return _png(picture)


def overview_of(path: Path, box: list[float]) -> bytes:
    """Draw the whole image, small, with the box: PNG."""
    image = display_pixels(path)
    scale = OVERVIEW_PX / max(image.size)
    picture = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    x, y, width, height = (value * scale for value in box)
    _outline(ImageDraw.Draw(picture), [x - 2, y - 2, x + width + 2, y + height + 2], (255, 225, 0))
    return _png(picture)


def _outline(draw: ImageDraw.ImageDraw, corners: list[float], color: tuple[int, int, int]) -> None:
    """Draw a frame with a black one around it, to be seen on any ground."""
    left, top, right, bottom = corners
    draw.rectangle([left - 2, top - 2, right + 2, bottom + 2], outline=(0, 0, 0), width=2)
    draw.rectangle(corners, outline=color, width=2)


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()
