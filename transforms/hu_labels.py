"""Automatic labels of axial chest CT by HU thresholds and connected components: body, left and right lung, trachea.

They stand in for a person's labels and are named "automatic labels (HU threshold)" wherever they appear.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy import ndimage

LABELLER = "automatic (HU threshold)"
NAMES = ("background", "body", "left lung", "right lung", "trachea")
BODY, LEFT_LUNG, RIGHT_LUNG, TRACHEA = 1, 2, 3, 4
# Above the first is tissue, below the second lung or air.
TISSUE_HU, AERATED_HU = -350.0, -400.0
# An airway is darker than the first by its median, than the second at its darkest; gas of the bowel, and no small part
# of a lung, than the third by its 10 % quantile (measured: at most -952, lungs at least -938); the room, than the last.
AIRWAY_HU, AIR_HU, GAS_HU, ROOM_HU = -750.0, -900.0, -945.0, -970.0
# Shares of the area of the body, which are the same at any size of the picture.
SMALLEST_LUNG, SMALLEST_EMPHYSEMA, SMALLEST_AIRWAY, LARGEST_AIRWAY = 0.004, 0.06, 0.0007, 0.012
# Places of airways: distance from the middle in widths of the body, and depth in heights; then a wider middle, in which
# what is as small is no lung either.
AIRWAY_OFFSET, AIRWAY_DEPTH, MIDDLE = 0.08, (0.15, 0.7), 0.12
# Shares of the area of the torso, and of the height of the picture.
SMALLEST_ARM, LONGEST_GAP = 0.02, 0.4


def label_slice(hu: np.ndarray, *, trachea: bool = False) -> np.ndarray:
    """Label one axial slice in the radiological view: rows towards posterior, columns towards the patient's left.

    Args:
        hu: (H, W) in HU.
        trachea: label the trachea and main bronchi outside the lungs too; without it they are body.

    Returns:
        uint8 (H, W) of ids, in the order of ``NAMES``. The left lung is in the right half of the picture.

    Raises:
        ValueError: it is no single slice.
    """
    if hu.ndim != 2:
        raise ValueError(f"hu has shape {hu.shape}, expected one slice (H, W)")
    body = find_body(hu)
    labels = np.where(body, np.uint8(BODY), np.uint8(0))
    if not body.any():
        return labels
    lungs, airways = find_air(hu, body)
    columns = np.flatnonzero(body.any(axis=0))
    lungs = fill_vessels(lungs, body & ~airways, width=columns[-1] - columns[0] + 1)
    left = left_side(lungs, middle=(columns[0] + columns[-1]) / 2)
    labels[lungs & left] = LEFT_LUNG
    labels[lungs & ~left] = RIGHT_LUNG
    if trachea:
        labels[airways] = TRACHEA
    return labels


def find_air(hu: np.ndarray, body: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tell lungs from airways and other gas among the dark regions of a body.

    Args:
        hu: (H, W) in HU.
        body: bool (H, W), true somewhere.

    Returns:
        lungs without their vessels, and airways outside them, bool (H, W) each.
    """
    rows, columns = np.flatnonzero(body.any(axis=1)), np.flatnonzero(body.any(axis=0))
    height, width, area = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1, body.sum()
    lungs, airways = np.zeros_like(body), np.zeros_like(body)
    regions, count = ndimage.label(body & (hu < AERATED_HU))
    for number, place in enumerate(ndimage.find_objects(regions, max_label=count), start=1):
        region = regions[place] == number
        values, share = hu[place][region], region.sum() / area
        y, x = (float(where.mean()) + part.start for where, part in zip(np.nonzero(region), place, strict=True))
        offset, depth = abs(x - (columns[0] + columns[-1]) / 2) / width, (y - rows[0]) / height
        if share <= LARGEST_AIRWAY and offset < MIDDLE and AIRWAY_DEPTH[0] < depth < AIRWAY_DEPTH[1]:
            is_dark = np.median(values) < AIRWAY_HU and values.min() < AIR_HU
            if is_dark and share >= SMALLEST_AIRWAY and offset < AIRWAY_OFFSET:
                airways[place] |= region
        elif share >= SMALLEST_LUNG and not is_gas(values, share=share):
            lungs[place] |= region
    return lungs, airways


def label_volume(hu: np.ndarray, *, trachea: bool = False) -> np.ndarray:
    """Label a volume (slice, row, column) slice by slice, as :func:`label_slice` does."""
    return np.stack([label_slice(one, trachea=trachea) for one in hu])


def find_body(hu: np.ndarray) -> np.ndarray:
    """Find the body with all that it encloses, bool (H, W): neither the table nor what lies thin beside it.

    Where the picture cuts the body at its left or right, and a lung lies open there, the edge closes the wall.
    """
    height, width = hu.shape
    thin, band = max(2, round(width / 64)), max(6, round(width / 20))
    tissue = hu > TISSUE_HU
    body = solid_parts(tissue, tissue, thin=thin)
    closed = tissue.copy()
    for edge in (slice(None, band), slice(-band, None)):
        rows = np.flatnonzero((body & tissue)[:, edge].any(axis=1))
        for first, last in pairwise(rows):
            if 1 < last - first <= LONGEST_GAP * height:
                closed[first : last + 1, edge] |= hu[first : last + 1, edge] > ROOM_HU
    return body if (closed == tissue).all() else solid_parts(closed, tissue, thin=thin)


def solid_parts(closed: np.ndarray, tissue: np.ndarray, *, thin: int) -> np.ndarray:
    """Keep the part of most tissue with all that it encloses, and arms beside it, but nothing of ``thin`` px.

    A table lies below, and it is a shell around air: a part that encloses more than it is made of is none of the body.
    """
    padded = np.pad(ndimage.binary_fill_holes(closed), thin, mode="edge")
    solid = ndimage.binary_opening(padded, np.ones((thin, thin)))[thin:-thin, thin:-thin]
    regions, count = ndimage.label(solid)
    if not count:
        return solid
    numbers = np.arange(1, count + 1)
    areas, contents = ndimage.sum_labels(solid, regions, numbers), ndimage.sum_labels(tissue, regions, numbers)
    torso = int(np.argmax(contents))
    bottom = np.flatnonzero((regions == torso + 1).any(axis=1))[-1]
    centres = np.array([centre for centre, _ in ndimage.center_of_mass(solid, regions, numbers)])
    is_arm = (contents >= SMALLEST_ARM * contents[torso]) & (contents > 0.6 * areas) & (centres < bottom)
    is_arm[torso] = True
    return np.isin(regions, numbers[is_arm])


def is_gas(values: np.ndarray, *, share: float) -> bool:
    """Whether the HU of a region are those of gas in airways, stomach or bowel, not of lung, which has vessels in it.

    Of a region as large as a lung they may be those of emphysema.
    """
    return share < SMALLEST_EMPHYSEMA and bool(np.percentile(values, 10) < GAS_HU)


def fill_vessels(lungs: np.ndarray, body: np.ndarray, *, width: int) -> np.ndarray:
    """Take vessels and the border of bronchi within the lungs for lung."""
    if not lungs.any():
        return lungs
    radius = max(1, round(width / 100))
    padded = np.pad(lungs, radius)
    closed = ndimage.binary_closing(padded, disc(radius))[radius:-radius, radius:-radius]
    return ndimage.binary_fill_holes(closed | lungs) & body


def left_side(lungs: np.ndarray, *, middle: float) -> np.ndarray:
    """Tell which pixels of the lungs (H, W) are of the patient's left lung, which is right of the ``middle`` column.

    Lungs that touch are eroded until no piece lies on both sides; each pixel then goes with the nearest piece.
    """
    width = lungs.shape[1]
    side = np.broadcast_to(np.arange(width) > middle, lungs.shape)
    result = np.zeros_like(lungs)
    regions, count = ndimage.label(lungs)
    for number in range(1, count + 1):
        region = regions == number
        share = side[region].mean()
        if min(share, 1 - share) < 0.2:
            result |= region & (share > 0.5)
            continue
        pieces, core = np.zeros(lungs.shape, int), region
        for _ in range(max(2, width // 12)):
            core = ndimage.binary_erosion(core)
            cores, n = ndimage.label(core)
            areas = np.bincount(cores.ravel(), minlength=n + 1)[1:]
            large = 1 + np.flatnonzero(areas >= 0.1 * region.sum())
            shares = [side[cores == k].mean() for k in large]
            if len(large) >= 2 and any(s > 0.6 for s in shares) and any(s < 0.4 for s in shares):
                for k, s in zip(large, shares, strict=True):
                    pieces[cores == k] = 2 if s > 0.5 else 1
                break
        if not pieces.any():
            result |= region & side
            continue
        nearest = ndimage.distance_transform_edt(pieces == 0, return_distances=False, return_indices=True)
        result |= region & (pieces[tuple(nearest)] == 2)
    return result


def disc(radius: int) -> np.ndarray:
    """Make a disc as a structuring element, bool (2 r + 1, 2 r + 1)."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return x**2 + y**2 <= (radius + 0.5) ** 2
