"""Binary masks: black and white or 0 and 1, told from label maps. No torch is needed here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from .decoding import is_nifti, read_nifti
from .folder import image_suffix
from .raster import PIL_8BIT_MODES, open_image

# Grey values of a mask nearer to black or white than this are that colour, after a lossy format or a resized edge.
NEAR = 32
# Share of an image that may be flat areas of one grey between: a soft edge is grey too, but nowhere flat.
FLAT_SHARE = 0.001


def read_mask(path: Path) -> np.ndarray:
    """Read a binary mask, of 0 and 1 or of black and white, as bool (H, W).

    Foreground is 128 and above (JPEG masks are not exactly 0 and 255), or 1 where the file holds only 0 and 1; of a
    colour the brightest channel counts. What is transparent is background.

    Raises:
        ValueError: the file is corrupt, its values do not fit 8 bits, it looks like a label map, or what it marks lies
            in its transparency alone.
    """
    values = _read_values(path)
    check_binary(values, path)
    return values >= (1 if values.max(initial=0) <= 1 else 128)


def _read_values(path: Path) -> np.ndarray:
    """Return the grey values of a mask file, uint8 (H, W)."""
    if is_nifti(path):
        values = read_nifti(path)
        if values.ndim != 2 or not np.isin(values, np.arange(256)).all():
            raise ValueError(f"{path}: a NIfTI mask holds one whole number from 0 to 255 a pixel.")
        return values.astype(np.uint8)
    image = open_image(path)
    if image.mode not in PIL_8BIT_MODES:
        raise ValueError(
            f"{path}: pixel mode {image.mode!r} is deeper than 8 bits a channel, as of a label map that "
            "numbers its objects, which is for clinbundles prepare instance_maps."
        )
    values = _brightness(image, path)
    return _without_transparent(image, values, path) if image.has_transparency_data else values


def _brightness(image: Image.Image, path: Path) -> np.ndarray:
    """Return the grey values of a mask, or of one in a colour the brightest channel: red is as bright as white."""
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))
    rgb = np.asarray(image.convert("RGB"))
    values = rgb.max(axis=2)
    colours = (rgb >= values[..., None] / 2) @ np.array([1, 2, 4])  # which channels make the colour
    counts = np.bincount(colours[values >= 128], minlength=8)
    if (counts > FLAT_SHARE * values.size).sum() > 1:
        raise ValueError(
            f"{path}: a mask in {(counts > 0).sum()} colours: a mask holds black and one colour. A label map goes "
            "through prepare, with the ids that are foreground (--foreground)."
        )
    return values


def _without_transparent(image: Image.Image, values: np.ndarray, path: Path) -> np.ndarray:
    opaque = np.asarray(image.convert("RGBA").getchannel("A")) >= 128
    if opaque.all():
        return values
    visible = np.where(opaque, values, np.uint8(0))
    if opaque.any() and not visible.any():
        raise ValueError(
            f"{path}: its alpha channel marks {opaque.mean():.1%} of the image and their colour is black, so what is "
            "foreground cannot be told; save the mask as black and white without transparency."
        )
    return visible


def check_binary(values: np.ndarray, path: Path) -> None:
    """Refuse a mask that looks like a label map: black and white would be made of its ids by chance.

    A mask holds 0 and 1 alone, or black, white and the greys of edges. JPEG files are let through: they hold no ids.

    Args:
        values: grey values uint8 (H, W).
        path: file of the mask, to name it.

    Raises:
        ValueError: there are flat grey areas, or small ids beside which there is nothing bright, or nothing but 255 (an
            id for pixels to ignore).
    """
    if image_suffix(path).startswith((".jpg", ".jpeg")) or values.max(initial=0) <= 1:
        return
    counts = np.bincount(values.ravel(), minlength=256)
    corner = values[:-1, :-1]
    flat = (corner == values[1:, :-1]) & (corner == values[:-1, 1:]) & (corner > NEAR) & (corner < 255 - NEAR)
    if flat.sum() > FLAT_SHARE * values.size:
        suspect = int(np.bincount(corner[flat]).argmax())
    elif not counts[128:].any() or (counts[1:NEAR].any() and not counts[NEAR:255].any()):
        suspect = int(counts[1:128].argmax() + 1)
    else:
        return
    raise ValueError(
        f"{path}: {counts[suspect]} pixels of value {suspect}: a mask holds 0 and 1, or values near 0 and 255. "
        "A label map goes through prepare, with the ids that are foreground (--foreground)."
    )
