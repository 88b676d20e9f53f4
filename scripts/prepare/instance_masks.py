"""Masks written as run lengths, the way Kaggle's tables have them."""

from __future__ import annotations

import numpy as np


def decode_runs(text: str, *, height: int, width: int, column_major: bool = False) -> np.ndarray:
    """Run lengths in, bool (height, width) out.

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
