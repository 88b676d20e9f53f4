"""Simulated gaze on segmented images: fixations drawn from a ground-truth mask with the published gaze statistics.

Simulated gaze knows the answer. It may guide the training of a model; it must not reach the input of a validation or a
test unless the result is called an oracle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

DURATION_RANGE_MS = (70.0, 630.0)


@dataclass(frozen=True)
class GazeProfile:
    """What sets one kind of viewer and tracker apart; lengths are fractions of the image's width and height.

    The two profiles below were fitted on the 1000 masks of Kvasir-SEG until `fixation_statistics` came close to the
    published values: mean offset of an image's gaze from the polyp's centroid 0.041, its standard deviation in x and y
    0.029 and 0.036, mean and median share of time inside 0.85 and 0.90, 8.8 s an image for the expert; 0.267, 0.211 and
    0.189, 0.32 and 0.17 for the webcam. Offsets are taken per image, from the duration-weighted mean of its fixations:
    single fixations that close to the centroid would lie inside the polyp nearly always, against the published share.

    Args:
        trial_s: mean and standard deviation over images of the summed fixation time, before any loss.
        search_share: mean share of fixations that look for something else than the polyp.
        search_concentration: how alike the images are in that share (the sum of a Beta distribution's parameters).
        spread: how far fixations on a polyp follow its shape: 0 all in its centre, 1 evenly over its area.
        bias_xy: mean offset in x and y of a whole image's gaze, as left by calibration.
        bias_sd_xy: standard deviation over images of that offset.
        noise_sd: standard deviation in x and y of a single fixation.
        loss_range: smallest and largest share of fixations lost in an image.
    """

    trial_s: tuple[float, float]
    search_share: float
    search_concentration: float
    spread: float
    bias_xy: tuple[float, float]
    bias_sd_xy: tuple[float, float]
    noise_sd: float
    loss_range: tuple[float, float]


PROFILES = {
    "expert": GazeProfile(
        trial_s=(8.9, 1.5),
        search_share=0.08,
        search_concentration=10.0,
        spread=0.7,
        bias_xy=(0.0, 0.0),
        bias_sd_xy=(0.012, 0.022),
        noise_sd=0.04,
        loss_range=(0.0, 0.05),
    ),
    "webcam": GazeProfile(
        trial_s=(8.9, 1.5),
        search_share=0.05,
        search_concentration=10.0,
        spread=0.8,
        bias_xy=(0.0, 0.06),
        bias_sd_xy=(0.24, 0.215),
        noise_sd=0.02,
        loss_range=(0.0, 0.37),
    ),
}


def simulate_fixations(mask: np.ndarray, *, profile: str, rng: np.random.RandomState) -> np.ndarray:
    """Draw one viewer's fixations on an image from its mask, in time order.

    The viewer first looks around, then dwells on the polyps, on each in proportion to its area, with some looks
    elsewhere. Tracker offset (one per image) and noise (one per fixation) follow; what lands outside the image or is
    lost is left out, but never everything. A mask without foreground gives a searching gaze over the whole frame.

    Args:
        mask: (H, W), true inside a polyp.
        profile: "expert" (a trained viewer in front of a laboratory eye tracker) or "webcam" (a consumer camera).
        rng: source of all randomness; the same state gives the same fixations.

    Returns:
        float64 array (n, 3) of x, y and duration_ms, n >= 1; x and y are fractions of width and height from the
        top-left corner.

    Raises:
        ValueError: for an unknown profile or a mask that is not a non-empty (H, W) array.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile {profile!r} is unknown: choose one of {', '.join(PROFILES)}")
    mask = _checked_mask(mask)
    viewer = PROFILES[profile]

    searching, durations = _plan(viewer, rng, polyp_present=bool(mask.any()))
    targets = rng.beta(2.0, 2.0, size=(len(durations), 2))
    dwelling = ~searching
    targets[dwelling] = _points_on_polyps(mask, int(dwelling.sum()), spread=viewer.spread, rng=rng)
    bias = np.asarray(viewer.bias_xy) + np.asarray(viewer.bias_sd_xy) * rng.randn(2)
    points = targets + bias + viewer.noise_sd * rng.randn(*targets.shape)

    inside = ((points >= 0) & (points <= 1)).all(axis=1)
    visible = inside & (rng.rand(len(points)) >= rng.uniform(*viewer.loss_range))
    if not visible.any():
        visible[0] = True
        points[0] = points[0].clip(0, 1)
    return np.column_stack([points, durations])[visible]


def fixation_statistics(fixations: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Measure where the gaze centres, its share inside the mask and its time.

    Args:
        fixations: (n, 3) rows of x, y (fractions of width and height, within 0..1) and duration_ms.
        mask: (H, W), true inside a polyp; at least one pixel must be.

    Returns:
        dx, dy and offset: the duration-weighted mean gaze position minus the centroid of the mask (fractions), and its
        length; inside: share of the fixation time spent inside the mask; seconds: total fixation time.

    Raises:
        ValueError: if the mask or the fixations are empty.
    """
    mask = _checked_mask(mask)
    if not mask.any():
        raise ValueError("mask has no foreground, so gaze cannot be compared with its centroid")
    if len(fixations) == 0:
        raise ValueError("fixations is empty, so there is nothing to compare with the mask")
    points, durations = np.asarray(fixations, dtype=float)[:, :2], np.asarray(fixations, dtype=float)[:, 2]
    size_xy = np.array(mask.shape[::-1])
    centroid = (np.argwhere(mask).mean(axis=0)[::-1] + 0.5) / size_xy
    dx, dy = np.average(points, axis=0, weights=durations) - centroid
    column, row = np.minimum((points * size_xy).astype(int), size_xy - 1).T
    return {
        "dx": float(dx),
        "dy": float(dy),
        "offset": float(np.hypot(dx, dy)),
        "inside": float(np.average(mask[row, column], weights=durations)),
        "seconds": float(durations.sum() / 1000),
    }


def _checked_mask(mask: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"mask has shape {mask.shape}: expected a non-empty (H, W) array without a channel axis")
    return mask.astype(bool)


def _plan(viewer: GazeProfile, rng: np.random.RandomState, *, polyp_present: bool) -> tuple[np.ndarray, np.ndarray]:
    """Decide which fixations search and how long (ms) each lasts, until the viewing time of this image is used up."""
    budget_ms = 1000 * max(1.0, rng.normal(*viewer.trial_s))
    shortest, longest = DURATION_RANGE_MS
    most = int(budget_ms // shortest) + 1
    share = rng.beta(
        viewer.search_share * viewer.search_concentration, (1 - viewer.search_share) * viewer.search_concentration
    )
    searching = rng.rand(most) < share if polyp_present else np.ones(most, dtype=bool)
    searching[0] = True
    # Looking around is done in shorter fixations than looking closely.
    unit = np.where(searching, rng.beta(1.5, 3.5, size=most), rng.beta(2.5, 3.0, size=most))
    durations = shortest + (longest - shortest) * unit
    count = int(np.searchsorted(np.cumsum(durations), budget_ms)) + 1
    return searching[:count], durations[:count]


def _points_on_polyps(mask: np.ndarray, count: int, *, spread: float, rng: np.random.RandomState) -> np.ndarray:
    """Draw points (count, 2) as x, y fractions; an evenly drawn pixel falls on each polyp in proportion to its area."""
    if count == 0:
        return np.empty((0, 2))
    labels, components = ndimage.label(mask, structure=np.ones((3, 3)))
    centroids = np.array(ndimage.center_of_mass(mask, labels, range(1, components + 1)))
    foreground = np.argwhere(mask)
    pixels = foreground[rng.randint(len(foreground), size=count)]
    centres = centroids[labels[tuple(pixels.T)] - 1]
    row_column = centres + spread * (pixels + rng.rand(count, 2) - 0.5 - centres)
    return ((row_column + 0.5) / mask.shape)[:, ::-1]
