"""Whether the difference of two arms is more than chance, and how small a difference could be told at all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

EXACT_GROUPS, N_FLIPS = 16, 10_000  # all 2^16 flips at most, else so many random ones
STANDARD_ERRORS = 2.8  # a difference of so many is found in 80 % of experiments at a level of 5 %


def sign_flip_p(differences: np.ndarray, *, seed: int = 0) -> float:
    """Test whether the mean of paired differences is 0 by flipping their signs, two-sided.

    All flips up to 16 groups, else 10,000 random ones.

    Args:
        differences: of each group (P,).
        seed: of the random flips.

    Returns:
        the p-value; NaN for fewer than two groups, or where a difference is not defined.

    Source: Fisher, The Design of Experiments, section 21.
    """
    differences = np.round(np.asarray(differences, dtype=float), 12)  # so that equal flips tie
    if len(differences) < 2 or np.isnan(differences).any():
        return float("nan")
    test = stats.permutation_test(
        (differences,),
        lambda values, axis: values.mean(axis=axis),
        permutation_type="samples",
        n_resamples=2**EXACT_GROUPS if len(differences) <= EXACT_GROUPS else N_FLIPS,
        batch=1000,
        random_state=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Adjust the p-values of the comparisons of a table (M,) for their number; NaN is no comparison.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure.
    """
    adjusted = np.array(p_values, dtype=float)
    order = np.argsort(adjusted)[: int((~np.isnan(adjusted)).sum())]
    adjusted[order] = np.minimum(1, np.maximum.accumulate(adjusted[order] * np.arange(len(order), 0, -1)))
    return adjusted


def smallest_difference(by_group: np.ndarray, by_seed: np.ndarray) -> float:
    """Find the smallest difference that so many groups and seeds could show: 2.8 times its standard error.

    Args:
        by_group: difference of each group, averaged over the seeds (P,).
        by_seed: difference of each seed, over all groups (S,).

    Returns:
        the difference; NaN where there are neither two groups nor two seeds.
    """
    errors = [stats.sem(values) for values in (by_group, by_seed) if len(values) > 1]
    return STANDARD_ERRORS * math.hypot(*errors) if errors else float("nan")


def say_seeds(n_seeds: int, n_others: int) -> str:
    """Say how often the seeds of one arm all beat those of another where the arms do not differ."""
    words = {1: "one beats", 2: "both beat"}.get(n_seeds, "all beat")
    others = {1: "one", 2: "both"}.get(n_others, "all")
    number = str(n_seeds) if n_seeds == n_others else f"{n_seeds} and {n_others}"
    plural = "seed" if number == "1" else "seeds"
    return f"{number} {plural}: {words} {others} by chance in 1 of {math.comb(n_seeds + n_others, n_seeds)}"
