"""Masks that hold one label id a pixel: read, checked against a data set's label map, and made foreground or not."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from clinbundles.transforms.readers.decoding import is_nifti, open_image, read_nifti
from clinbundles.transforms.readers.folder import image_suffix

# Grey values of a mask nearer to black or white than this are that colour, after a lossy format or a resized edge.
NEAR = 32
# Share of an image that may be flat areas of one grey between: a soft edge is grey too, but nowhere flat.
FLAT_SHARE = 0.001


def read_label_map(path: Path) -> np.ndarray:
    """Label map file (grey or palette image, or NIfTI) in, whole numbers (H, W) out.

    Raises:
        ValueError: the file is corrupt, or a colour image.
    """
    if is_nifti(path):
        values = read_nifti(path)
        if values.ndim != 2 or not np.isfinite(values).all() or (values != np.rint(values)).any():
            raise ValueError(f"{path}: a label map holds one whole number a pixel.")
        return values.astype(np.int64)
    image = open_image(path)
    values = np.asarray(image)
    if values.ndim == 3 and image.mode == "RGB" and (values == values[..., :1]).all():
        values = values[..., 0]
    if values.ndim != 2 or image.mode == "F":
        raise ValueError(f"{path}: pixel mode {image.mode!r} is no label map (one id a pixel).")
    return values.astype(np.int64)


def foreground_of(path: Path, *, foreground: Collection[int], known: Collection[int] | None = None) -> np.ndarray:
    """Label map file in, bool (H, W) out: where its id is one of ``foreground``.

    Args:
        path: the file.
        foreground: ids that count.
        known: every id of the data set's label map; None takes any.

    Raises:
        ValueError: the file is no label map, or holds an id that is not ``known``.
    """
    ids = read_label_map(path)
    unknown = [] if known is None else [int(value) for value in np.unique(ids) if value not in known]
    if unknown:
        raise ValueError(f"{path}: label id {unknown[0]} is not in the label map of the data set.")
    return np.isin(ids, list(foreground))


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
        "For a label map say which ids are foreground (--foreground)."
    )
