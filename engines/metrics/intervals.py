"""Intervals of 95 % by resampling what the split groups: patients, children, plates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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


class Resampled(NamedTuple):
    """A score of P groups, and what an interval of it and a test of differences need.

    Args:
        value: of the set (...).
        drawn: of R resamples of the groups (R, ...), NaN where not defined; R is 0 for fewer than ten groups.
        group_values: what each group adds (P, ...). Of a mean it is the mean of the group; of any other score P times
            the value less P - 1 times that of the set without the group.

    Source: Tukey, Bias and Confidence in Not-quite Large Samples (the pseudo-values of the jackknife).
    """

    value: np.ndarray
    drawn: np.ndarray
    group_values: np.ndarray


def resample(
    scores: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    n_groups: int,
    *,
    draw: Callable[..., np.ndarray] = draw_groups,
    seed: int = 0,
) -> dict[str, Resampled]:
    """Score a set of P groups, resamples of them if there are ten or more, and the set without each group in turn.

    Args:
        scores: takes how often each group counts (R, P) and gives values (R, ...) by name, NaN where not defined.
        n_groups: P.
        draw: draws the resamples.
        seed: of the draw.
    """
    whole = scores(np.ones((1, n_groups), dtype=int))
    drawn = scores(draw(n_groups, seed=seed)) if n_groups >= FEWEST_GROUPS else {k: v[:0] for k, v in whole.items()}
    without = scores(1 - np.eye(n_groups, dtype=int)) if n_groups > 1 else whole
    return {
        name: Resampled(value[0], drawn[name], n_groups * value - (n_groups - 1) * without[name])
        for name, value in whole.items()
    }


def resample_mean(
    values: np.ndarray,
    groups: np.ndarray | None,
    *,
    draw: Callable[..., np.ndarray] = draw_groups,
    seed: int = 0,
) -> Resampled:
    """Resample the mean of N values by group, as :func:`resample`; groups as for :func:`number_groups`."""
    clusters = number_groups(groups, len(values))
    sums, counts = np.bincount(clusters, weights=np.asarray(values, dtype=float)), np.bincount(clusters)
    draws = draw(len(counts), seed=seed) if len(counts) >= FEWEST_GROUPS else np.empty((0, len(counts)))
    return Resampled(sums.sum() / counts.sum(), (draws @ sums) / (draws @ counts), sums / counts)


def ratio_of(one: Resampled, other: Resampled) -> Resampled:
    """Divide two scores of the same groups, in each resample and without each group; NaN where the other is 0."""
    n_groups = len(one.group_values)

    def divide(value: np.ndarray, by: np.ndarray) -> np.ndarray:
        return np.divide(value, by, out=np.full(np.shape(value), np.nan), where=np.asarray(by) != 0)

    value = divide(np.asarray(one.value), np.asarray(other.value))
    sums = [n_groups * each.value - each.group_values for each in (one, other)]  # P - 1 times those without the group
    return Resampled(value, divide(one.drawn, other.drawn), n_groups * value - (n_groups - 1) * divide(*sums))


def mean_of(several: Sequence[Resampled]) -> Resampled:
    """Average a score over several sets of the same groups, such as the seeds of a training, in each resample."""
    return Resampled(*(np.mean(parts, axis=0) for parts in zip(*several, strict=True)))


def resample_matrices(matrices: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Add up the confusion matrices by group (P, K, K) that each of the draws (R, P) holds, (R, K, K).

    A resample without any image of a class that the whole set has becomes NaN, and with it every score of it: there
    its recall would be 0/0, which says nothing about the classifier. :func:`interval` leaves those resamples out.
    """
    resamples = np.tensordot(draws, matrices.astype(float), axes=1)
    incomplete = (resamples.sum(-1) == 0) & (matrices.sum((0, -1)) > 0)
    resamples[incomplete.any(-1)] = np.nan
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


def interval_of(resampled: Resampled, *, units: Any = None) -> np.ndarray:
    """Find the 95 % interval of a score over its groups.

    From ten groups on it is the percentile interval of resamples; of two to nine Student's t interval over what each
    group adds, for a mean that over the groups' means; of one there is none. Where a score within 0 to 1 is 0 or 1,
    all resamples are equal, and it is Wilson's.

    Args:
        resampled: values (...).
        units: number of groups that a score within 0 to 1 rests on (...); None for one without such bounds.

    Returns:
        low and high end (..., 2), NaN where there is no interval.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 11; Wilson, Probable Inference.
    """
    value, n_groups = np.asarray(resampled.value), len(resampled.group_values)
    if n_groups < 2:
        return np.full((*value.shape, 2), np.nan)
    ends = interval(resampled.drawn) if n_groups >= FEWEST_GROUPS else _student_interval(resampled)
    if units is None:
        return ends
    ends, units = np.clip(ends, 0, 1), np.broadcast_to(units, value.shape)
    for place in np.argwhere(np.isclose(value, 0, atol=1e-12) | np.isclose(value, 1, rtol=0, atol=1e-12)):
        n_units = int(units[tuple(place)])
        ends[tuple(place)] = share_interval(round(float(value[tuple(place)])) * n_units, n_units)
    return ends


def _student_interval(resampled: Resampled) -> np.ndarray:
    """Find Student's interval (..., 2), which holds the value also where groups are of unequal sizes."""
    n_groups = len(resampled.group_values)
    centre = resampled.group_values.mean(axis=0)
    half = stats.t.ppf(0.975, n_groups - 1) * stats.sem(resampled.group_values, axis=0)
    # NaN of a group stays NaN.
    return np.stack([np.minimum(centre - half, resampled.value), np.maximum(centre + half, resampled.value)], axis=-1)


def share_interval(count: int, n_units: int) -> np.ndarray:
    """Find Wilson's 95 % interval (2,) of the share of independent units that count, NaN where there are none."""
    if not n_units:
        return np.full(2, np.nan)
    ends = stats.binomtest(count, n_units).proportion_ci(0.95, method="wilson")
    return np.array([ends.low, ends.high])


def mean_interval(values: np.ndarray, groups: np.ndarray | None, *, seed: int = 0) -> np.ndarray:
    """Find the 95 % interval of the mean of N values by group, as :func:`interval_of`.

    Args:
        values: (N,) finite numbers, or truth values, of which the mean is a share.
        groups: as for :func:`number_groups`.
        seed: of the draw.

    Returns:
        low and high end (2,), NaN where there is no interval.
    """
    if not len(values):
        return np.full(2, np.nan)
    resampled = resample_mean(values, groups, seed=seed)
    return interval_of(resampled, units=len(resampled.group_values) if values.dtype == bool else None)


def describe_intervals(n_groups: int, unit: str = "groups") -> str:
    """Say in a few words what an interval over so many groups is."""
    if n_groups < 2:
        return f"no interval of a single one of the {unit}"
    return f"{'t' if n_groups < FEWEST_GROUPS else 'bootstrap'} interval over {n_groups} {unit}"


def with_interval(value: float | np.ndarray, ends: np.ndarray) -> dict[str, float | None]:
    """Write a value and its interval as JSON: value, low and high to four digits, None where not defined."""
    return {name: rounded(number) for name, number in zip(("value", "low", "high"), (value, *ends), strict=True)}


def rounded(value: float | np.ndarray) -> float | None:
    """Round to four digits; a value that is not defined becomes None, which JSON has a word for."""
    return round(float(value), 4) if math.isfinite(value) else None
