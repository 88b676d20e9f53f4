"""Intervals of 95 % by resampling what the split groups: patients, children, plates."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

N_RESAMPLES = 2000  # the ends of a 95 % interval then rest on 50 resamples each
FEWEST_GROUPS = 10  # a resample of fewer repeats too few values


def number_groups(groups: np.ndarray | None, n_images: int) -> np.ndarray:
    """Number the groups of N images from 0 to P - 1 without gaps.

    Args:
        groups: number of each image's patient or other group (N,), NaN where unknown; None where all are. Such an image
            is a group of its own.
        n_images: N.
    """
    numbers = np.full(n_images, np.nan) if groups is None else np.asarray(groups, dtype=float)
    own = np.fmax.reduce(numbers, initial=-1) + 1 + np.arange(n_images)
    return np.unique(np.where(np.isnan(numbers), own, numbers), return_inverse=True)[1]


def draw_groups(n_groups: int, *, n_resamples: int = N_RESAMPLES, seed: int = 0) -> np.ndarray:
    """Draw P groups with replacement, R times: how often each is in each resample (R, P)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_resamples)


def draw_one_by_one(n_groups: int, *, n_resamples: int = 10_000, seed: int = 0) -> np.ndarray:
    """Draw as :func:`draw_groups` does, but group by group, as ``scipy.stats.bootstrap``.

    The published differences of segmentations rest on these draws.
    """
    members = np.random.default_rng(seed).integers(0, n_groups, (n_resamples, n_groups))
    cells = members + n_groups * np.arange(n_resamples)[:, None]
    return np.bincount(cells.ravel(), minlength=n_resamples * n_groups).reshape(n_resamples, n_groups)


def resample_matrices(matrices: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Add up the confusion matrices by group (P, K, K) that each of the draws (R, P) holds, (R, K, K).

    A resample without any image of a class that the whole set has becomes NaN, and with it every score of it: there
    its recall would be 0/0, which says nothing about the classifier. :func:`interval` leaves those resamples out. With
    fewer than ten groups all is NaN.
    """
    resamples = np.tensordot(draws, matrices.astype(float), axes=1)
    incomplete = (resamples.sum(-1) == 0) & (matrices.sum((0, -1)) > 0)
    resamples[incomplete.any(-1) | (len(matrices) < FEWEST_GROUPS)] = np.nan
    return resamples


def interval(values: np.ndarray) -> np.ndarray:
    """Find the 95 % percentile interval of a score from its values in R resamples.

    Args:
        values: (R, ...); NaN is left out.

    Returns:
        low and high end (..., 2), NaN where all values are.

    Source: Efron, Bootstrap Methods: Another Look at the Jackknife.
    """
    values = np.asarray(values, dtype=float)
    ends = np.full((*values.shape[1:], 2), np.nan)
    for place in np.ndindex(values.shape[1:]):
        numbers = values[(slice(None), *place)]
        numbers = numbers[~np.isnan(numbers)]
        if len(numbers):
            ends[place] = np.quantile(numbers, [0.025, 0.975])
    return ends


def mean_interval(
    values: np.ndarray,
    groups: np.ndarray | None,
    *,
    draw: Callable[..., np.ndarray] = draw_groups,
    seed: int = 0,
) -> np.ndarray:
    """Find the 95 % interval of the mean of N values, by group.

    From ten groups on they are resampled. Of fewer it is Student's t interval over the means of the groups; a share,
    which that interval would take out of 0 to 1, has none then, and neither has what comes from a single group.

    Args:
        values: (N,) finite numbers, or truth values, of which the mean is a share.
        groups: as for :func:`number_groups`.
        draw: draws the resamples.
        seed: of the draw.

    Returns:
        low and high end (2,), NaN where there is no interval.
    """
    clusters = number_groups(groups, len(values))
    sums, counts = np.bincount(clusters, weights=np.asarray(values, dtype=float)), np.bincount(clusters)
    if len(counts) >= FEWEST_GROUPS:
        draws = draw(len(counts), seed=seed)
        return interval((draws @ sums) / (draws @ counts))
    if len(counts) < 2 or values.dtype == bool:
        return np.full(2, np.nan)
    means = sums / counts
    half = stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / math.sqrt(len(means))
    return means.mean() + np.array([-half, half])


def with_interval(value: float | np.ndarray, ends: np.ndarray) -> dict[str, float | None]:
    """Write a value and its interval as JSON: value, low and high to four digits, None where not defined."""
    return {name: rounded(number) for name, number in zip(("value", "low", "high"), (value, *ends), strict=True)}


def rounded(value: float | np.ndarray) -> float | None:
    """Round to four digits; a value that is not defined becomes None, which JSON has a word for."""
    return round(float(value), 4) if math.isfinite(value) else None
