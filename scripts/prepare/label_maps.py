"""Masks that hold one label id a pixel: read, checked against a data set's label map, and made foreground or not."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from clinbundles.transforms.readers.decoding import is_nifti, open_image, read_nifti


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
