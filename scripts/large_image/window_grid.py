"""Square windows that cover an image, each read with a margin and kept without it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

SMALLEST_CHUNK, LARGEST_CHUNK = 64, 512


@dataclass(frozen=True)
class Window:
    """One window: its place in the grid, where it is read, and which part of it is kept.

    Args:
        row: row in the grid of windows.
        column: column in the grid of windows.
        y: first row of the pixels read.
        x: first column of the pixels read.
        kept_y: first and last + 1 row of the pixels kept.
        kept_x: first and last + 1 column of the pixels kept.
    """

    row: int
    column: int
    y: int
    x: int
    kept_y: tuple[int, int]
    kept_x: tuple[int, int]


def windows_of(shape: tuple[int, int], *, window: int, overlap: int) -> Iterator[Window]:
    """Image size (H, W) in; windows out, row by row, that together keep every pixel once.

    Each keeps a square of window - 2 * overlap pixels in the middle of what it reads. At the image's border it is moved
    inwards rather than cut off: it always reads ``window`` pixels each way, where the image has as many, and its border
    is then the image's, as if the whole image had been read.
    """
    inner = window - 2 * overlap
    for row in range(math.ceil(shape[0] / inner)):
        for column in range(math.ceil(shape[1] / inner)):
            starts = row * inner, column * inner
            y, x = (max(min(s - overlap, size - window), 0) for s, size in zip(starts, shape, strict=True))
            kept = [(s, min(s + inner, size)) for s, size in zip(starts, shape, strict=True)]
            yield Window(row, column, y, x, kept[0], kept[1])


def chunk_of(*, window: int, overlap: int) -> int:
    """Return the side in pixels of the chunks that the kept part of a window divides into: a power of two up to 512.

    Raises:
        ValueError: the kept part, window - 2 * overlap, is no multiple of 64.
    """
    inner = window - 2 * overlap
    if overlap < 0 or inner <= 0 or math.gcd(inner, LARGEST_CHUNK) < SMALLEST_CHUNK:
        raise ValueError(
            f"window is {window} and overlap {overlap}: expected an overlap of 0 or more and window - 2 * overlap, now "
            f"{inner}, to be a multiple of {SMALLEST_CHUNK}."
        )
    return math.gcd(inner, LARGEST_CHUNK)
