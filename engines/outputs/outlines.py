"""Outlines of masks as polygons along the edges of their pixels."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from scipy import ndimage

Ring = list[list[int]]


def polygons(mask: np.ndarray, *, top: int = 0, left: int = 0) -> list[list[Ring]]:
    """Outline a mask by polygons that cover its pixels exactly.

    Pixels that touch by a corner alone are in polygons of their own, so that no outline meets itself.

    Args:
        mask: bool (h, w).
        top: row of its first pixel in the image.
        left: column of its first pixel in the image.

    Returns:
        for each part of the mask its outer ring and then those of its holes; a ring is its corners (x, y) in px, the
        first one again at the end.
    """
    parts, _ = ndimage.label(mask)
    outlines = []
    for number, place in enumerate(ndimage.find_objects(parts), start=1):
        rings = _rings(parts[place] == number, top + place[0].start, left + place[1].start)
        outlines.append(sorted(rings, key=_extent, reverse=True))  # no hole is as wide as what it is in
    return outlines


def _extent(ring: Ring) -> int:
    columns = [x for x, _ in ring]
    return max(columns) - min(columns)


def _rings(mask: np.ndarray, top: int, left: int) -> list[Ring]:
    """Walk along the edges of a connected mask, which is to the right, from corner to corner."""
    padded = np.pad(mask, 1).astype(np.int8)
    # A difference of 1 is where the mask begins, from the left or from above; of -1, where it ends.
    vertical, horizontal = np.diff(padded, axis=1)[1:-1], np.diff(padded, axis=0)[:, 1:-1]
    steps: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)  # from (x, y) in the direction (dx, dy)
    for y, x in np.argwhere(vertical == 1).tolist():
        steps[x, y + 1].append((0, -1))
    for y, x in np.argwhere(vertical == -1).tolist():
        steps[x, y].append((0, 1))
    for y, x in np.argwhere(horizontal == 1).tolist():
        steps[x, y].append((1, 0))
    for y, x in np.argwhere(horizontal == -1).tolist():
        steps[x + 1, y].append((-1, 0))
    rings = []
    while steps:
        x, y = start = min(steps)  # a corner: nothing of its ring lies to its left, or above it in its column
        ring: Ring = []
        before = (0, 0)
        while not ring or (x, y) != start:
            ahead = steps[x, y]
            # Where two corners of the mask meet, turn to the other one: the pixels between belong to different holes.
            turn = (before[1], -before[0])
            step = ahead.pop(ahead.index(turn) if len(ahead) > 1 and turn in ahead else 0)
            if not ahead:
                del steps[x, y]
            if step != before:
                ring.append([x + left, y + top])
            x, y, before = x + step[0], y + step[1], step
        rings.append([*ring, ring[0]])
    return rings
