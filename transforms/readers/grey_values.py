"""Grey values counted and looked up, by parts that stay in a processor's cache. No torch is needed here."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

_PART = 1 << 18  # numpy counts and looks up in 64 bits: 2 MB


def count_values(values: np.ndarray) -> np.ndarray:
    """Count how often each number occurs.

    Args:
        values: uint8 or uint16 of any shape.

    Returns:
        int64 (256,) or (65536,).

    Raises:
        ValueError: they are of another type.
    """
    if values.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"expected values of uint8 or uint16, got {values.dtype}.")
    if not values.size or values.dtype == np.uint16:
        counts = np.zeros(np.iinfo(values.dtype).max + 1, dtype=np.int64)
        for part in _parts(values):
            counts += np.bincount(values[part].ravel(), minlength=len(counts))
        return counts
    # Pillow takes less than a third of numpy's time.
    return np.array(Image.fromarray(values.reshape(len(values), -1)).histogram(), dtype=np.int64)


def look_up(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the entries of a table (n,) for whole numbers of any shape below n; -1 is the last entry."""
    entries = np.empty(values.shape, dtype=table.dtype)
    for part in _parts(values):
        entries[part] = table.take(values[part])
    return entries


def _parts(values: np.ndarray) -> Iterator[slice]:
    """Cut an array into parts along its first axis."""
    step = max(1, _PART * len(values) // max(1, values.size))
    return (slice(start, start + step) for start in range(0, len(values), step))
