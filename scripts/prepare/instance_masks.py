"""Masks of single instances joined to one: run lengths of Kaggle's tables, polygons of COCO's lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from skimage.draw import polygon


def decode_runs(text: str, *, height: int, width: int, column_major: bool = False) -> np.ndarray:
    """Decode run lengths to a mask, bool (height, width).

    Args:
        text: ``start length start length ...``; the first pixel is 1; nothing at all is an empty mask.
        height: of the image in pixels.
        width: of the image in pixels.
        column_major: pixels are counted down the columns (Data Science Bowl 2018) and not along the rows (Sartorius).

    Raises:
        ValueError: the text is no pairs of whole numbers, or a run is empty or leaves the image.
    """
    try:
        numbers = [int(word) for word in text.split()]
    except ValueError as error:
        raise ValueError(f"run lengths {text[:40]!r} are not whole numbers.") from error
    if len(numbers) % 2:
        raise ValueError(f"{len(numbers)} run-length numbers, expected pairs of start and length.")
    mask = np.zeros(height * width, dtype=bool)
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        if start < 1 or length < 1 or start + length - 1 > mask.size:
            raise ValueError(f"run of {length} pixels from pixel {start} on leaves the image of {width}x{height} px.")
        mask[start - 1 : start - 1 + length] = True
    return mask.reshape(width, height).T if column_major else mask.reshape(height, width)


def union_of_polygons(cells: Sequence[Mapping[str, Any]], *, size: tuple[int, int], path: Path) -> np.ndarray:
    """Join the cells of one image to a mask, bool (height, width).

    Args:
        cells: annotations of COCO, each with its id and its segmentation, polygons x, y, x, y, ... in px.
        size: width and height of the image.
        path: the list they are from, to name it.

    Raises:
        ValueError: a segmentation is missing, or a part of it no polygon.
    """
    mask = np.zeros(size[::-1], dtype=bool)
    for cell in cells:
        for part in cell.get("segmentation") or [None]:
            if not isinstance(part, list) or len(part) < 6 or len(part) % 2:
                raise ValueError(f"{path}: annotation {cell['id']}: segmentation is no list of polygons.")
            # In COCO the middle of the first pixel is at 0.5.
            points = np.asarray(part, dtype=np.float64).reshape(-1, 2) - 0.5
            mask[polygon(points[:, 1], points[:, 0], mask.shape)] = True
    return mask
