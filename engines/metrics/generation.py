"""Measures of generated images by features: KID, FID, precision, recall, density, coverage, with intervals.

The intervals resample generated images and none of the real ones, which are of few patients: they say how the value
would vary over other images of this generator, and nothing of other patients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy.spatial.distance import cdist

from .intervals import FEWEST_GROUPS, N_RESAMPLES, draw_groups, interval, share_interval

NEIGHBOURS = 5
FRECHET_RESAMPLES = 200  # each is an eigenvalue problem; the ends then rest on five resamples


def kernel_distance(
    real: np.ndarray, generated: np.ndarray, *, subsets: int | None = None, subset_size: int = 100, seed: int = 0
) -> float:
    """Compute KID: the unbiased squared maximum mean discrepancy with the kernel (x . y / D + 1)^3.

    Args:
        real: features (N, D) of N >= 2 real images.
        generated: features (M, D) of M >= 2 generated ones.
        subsets: number of subsets to average over, as is done for large sets; None takes all images at once.
        subset_size: images of each set in a subset, drawn without replacement; at most N and M.
        seed: of the draw.

    Returns:
        the distance, which is below 0 by chance where the sets hardly differ.

    Raises:
        ValueError: sets of other shapes, or of fewer than two images.

    Source: Binkowski et al., Demystifying MMD GANs, section 4; Gretton et al., A Kernel Two-Sample Test, eq. 3.
    """
    real, generated = _checked(real, generated)
    if subsets is None:
        return float(_kernel_distances(real, generated, np.ones((1, len(generated))))[0])
    rng, size = np.random.default_rng(seed), min(subset_size, len(real), len(generated))
    draws = (
        (real[rng.permutation(len(real))[:size]], generated[rng.permutation(len(generated))[:size]])
        for _ in range(subsets)
    )
    return float(np.mean([kernel_distance(some, others) for some, others in draws]))


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Compute FID: the Fréchet distance of two Gaussians, with population covariances (divided by N, not N - 1).

    Args:
        real: features (N, D) of real images.
        generated: features (M, D) of generated ones.

    Raises:
        ValueError: sets of other shapes, or of fewer than two images.

    Source: Heusel et al., GANs Trained by a Two Time-Scale Update Rule, eq. 6. The trace of (S1 S2)^(1/2) is the sum of
    the singular values of X Y^T / sqrt(N M), X and Y being the centred features: no root of a matrix is needed.
    """
    real, generated = _checked(real, generated)
    return next(_frechet_distances(real, generated, np.ones((1, len(generated)))))


def manifold_scores(real: np.ndarray, generated: np.ndarray, *, k: int = NEIGHBOURS) -> dict[str, float]:
    """Compute precision, recall, density and coverage from balls that reach to each image's k-th neighbour.

    Args:
        real: features (N, D) of N > k real images.
        generated: features (M, D) of M > k generated ones.
        k: which neighbour, in the image's own set.

    Returns:
        by name: the share of generated images inside a real ball (precision), that of real ones inside a generated ball
        (recall), the mean number of real balls around a generated image over k (density), and the share of real balls
        with a generated image inside (coverage).

    Raises:
        ValueError: sets of other shapes, or of no more than k images.

    Source: Kynkäänniemi et al., Improved Precision and Recall Metric, eq. 1 to 3; Naeem et al., Reliable Fidelity and
    Diversity Metrics for Generative Models, eq. 2 to 5.
    """
    real, generated = _checked(real, generated, least=k + 1)
    scores = _manifold_scores(real, generated, np.ones((1, len(generated))), k)
    return {name: float(values[0]) for name, values in scores.items()}


def score_generated(
    real: np.ndarray, generated: np.ndarray, *, name: str, k: int = NEIGHBOURS, seed: int = 0
) -> dict[str, dict[str, float | None]]:
    """Compute all measures of generated images, each with a 95 % interval over generated images.

    Args:
        real: features (N, D) of N > k real images.
        generated: features (M, D) of M > k generated ones.
        name: of the features, which becomes a part of the measures' names.
        k: neighbour of precision, recall, density and coverage.
        seed: of the resamples.

    Returns:
        by name, such as "KID-MobileNetV2": value, low, high, both ends None for fewer than ten generated images and
        where all resamples are equal. A resample repeats some images and lacks others, which makes FID higher and
        recall and coverage lower than those of as many different images: the interval is the value plus what the
        resamples deviate from their mean; where a share is 0 or 1 it holds Wilson's, too. In a resample a pair of the
        same image twice counts nothing for KID, and the balls of generated images are those of the whole set.

    Raises:
        ValueError: sets of other shapes, or of no more than k images.
    """
    real, generated = _checked(real, generated, least=k + 1)
    draws = draw_groups(len(generated), n_resamples=N_RESAMPLES, seed=seed).astype(float)
    counts = np.concatenate([np.ones((1, len(generated))), draws])
    values = {"KID": _kernel_distances(real, generated, counts)}
    values["FID"] = np.array(list(_frechet_distances(real, generated, counts[: 1 + FRECHET_RESAMPLES])))
    values |= _manifold_scores(real, generated, counts, k)
    return {f"{measure}-{name}": _with_ends(measure, numbers, len(generated)) for measure, numbers in values.items()}


def remarks(real: np.ndarray, generated: np.ndarray) -> list[str]:
    """Say what limits the measures of features (N, D) and (M, D)."""
    lines = [
        f"{kind} images are {len(features)}, fewer than the {features.shape[1]} features: their covariance has no full "
        "rank, and FID is too high by an amount that depends on the number; compare only at equal numbers"
        for kind, features in (("real", real), ("generated", generated))
        if len(features) < features.shape[1]
    ]
    return [
        *lines,
        "intervals are over generated images; the real ones are of a few patients and are not resampled",
        "where real images lie close together, as neighbouring slices do, their balls are small, and precision, "
        "density and coverage are low even for other real images",
    ]


def _with_ends(measure: str, values: np.ndarray, n_generated: int) -> dict[str, float | None]:
    value, resamples = float(values[0]), values[1:]
    is_share = measure in ("precision", "recall", "coverage")
    if n_generated < FEWEST_GROUPS or (np.ptp(resamples) == 0 and not is_share):
        return {"value": value, "low": None, "high": None}
    low, high = map(float, interval(resamples - resamples.mean() + value))
    if is_share:
        low, high = max(low, 0.0), min(high, 1.0)
        if value in (0, 1):  # resamples lie on one side of it, or are all the same
            ends = share_interval(int(value) * n_generated, n_generated)
            low, high = min(low, float(ends[0])), max(high, float(ends[1]))
    return {"value": value, "low": min(low, value), "high": max(high, value)}


def _checked(real: np.ndarray, generated: np.ndarray, *, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    real, generated = (np.asarray(features, dtype=np.float64) for features in (real, generated))
    if real.ndim != 2 or generated.ndim != 2 or real.shape[1] != generated.shape[1]:
        raise ValueError(f"features of shapes {real.shape} and {generated.shape}, expected (N, D) and (M, D).")
    for kind, features in (("real", real), ("generated", generated)):
        if len(features) < least:
            raise ValueError(f"{len(features)} {kind} images are too few, expected at least {least}.")
        if not np.isfinite(features).all():
            raise ValueError(f"features of {kind} images are not finite.")
    return real, generated


def _kernel_distances(real: np.ndarray, generated: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """KID of resamples (R,) that hold each generated image so often (R, M)."""

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / x.shape[1] + 1) ** 3

    among_real = kernel(real, real)
    within_real = (among_real.sum() - np.trace(among_real)) / (len(real) * (len(real) - 1))
    among = kernel(generated, generated)
    np.fill_diagonal(among, 0)
    pairs = counts.sum(1) ** 2 - (counts**2).sum(1)  # of two different images
    within = ((counts @ among) * counts).sum(1) / pairs
    across = counts @ kernel(generated, real).mean(1) / counts.sum(1)
    return within + within_real - 2 * across


def _frechet_distances(real: np.ndarray, generated: np.ndarray, counts: np.ndarray) -> Iterator[float]:
    """FID of resamples that hold each generated image so often (R, M)."""
    mean = generated.mean(0)
    centred, centred_real = generated - mean, real - real.mean(0)
    offset = mean - real.mean(0)
    spread_real = (centred_real**2).sum() / len(real)
    if len(real) > real.shape[1]:  # the same covariance by as many rows as there are features
        centred_real = np.linalg.qr(centred_real, mode="r")
    cross, norms = centred @ centred_real.T, (centred**2).sum(1)
    for weights in counts / counts.sum(1, keepdims=True):
        shift = weights @ centred
        spread = weights @ norms - shift @ shift
        rows = (cross - weights @ cross) * np.sqrt(weights)[:, None]
        gram = rows.T @ rows if rows.shape[0] > rows.shape[1] else rows @ rows.T
        roots = np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0, None)).sum() / math.sqrt(len(real))
        yield float(((offset + shift) ** 2).sum() + spread + spread_real - 2 * roots)


def _manifold_scores(real: np.ndarray, generated: np.ndarray, counts: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Precision, recall, density and coverage of resamples (R,) that hold each generated image so often (R, M)."""
    distances, total = cdist(real, generated), counts.sum(1)
    in_real_balls = distances < _radii(real, k)[:, None]
    in_generated_balls = distances < _radii(generated, k)[None, :]
    present = (counts > 0).astype(float)
    return {
        "precision": counts @ in_real_balls.any(0) / total,
        "recall": (in_generated_balls.astype(float) @ present.T > 0).mean(0),
        "density": counts @ in_real_balls.sum(0) / (k * total),
        "coverage": (in_real_balls.astype(float) @ present.T > 0).mean(0),
    }


def _radii(features: np.ndarray, k: int) -> np.ndarray:
    """Distance of each image to its k-th neighbour in the same set (N,)."""
    return np.partition(cdist(features, features), k, axis=1)[:, k]
