"""Folds of a set of images: contiguous ones, or such that no group is in two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np


def folds_in_order(n_images: int, n_folds: int) -> list[np.ndarray]:
    """Cut N images into contiguous folds of N // n_folds; the last ones, fewer than there are folds, are in none.

    Args:
        n_images: N.
        n_folds: number of folds.

    Returns:
        for each fold the places of its images.

    Raises:
        ValueError: there are fewer images than folds, or fewer than two folds.
    """
    _check(n_folds, n_images, "images")
    size = n_images // n_folds
    return [np.arange(k * size, (k + 1) * size) for k in range(n_folds)]


def folds_by_group(groups: Sequence[object], n_folds: int, *, seed: int = 0) -> list[np.ndarray]:
    """Deal groups, such as patients, to folds: the large ones first, each to the fold with the fewest images.

    Args:
        groups: group of each image.
        n_folds: number of folds.
        seed: of the order of groups of one size.

    Returns:
        for each fold the places of its images, in order; every image is in one.

    Raises:
        ValueError: there are fewer groups than folds, or fewer than two folds.
    """
    labels = np.array([str(group) for group in groups])
    sizes = Counter(labels.tolist())
    _check(n_folds, len(sizes), "groups, such as patients")
    names = sorted(sizes)
    order = [names[k] for k in np.random.default_rng(seed).permutation(len(names))]
    members: list[list[str]] = [[] for _ in range(n_folds)]
    for name in sorted(order, key=lambda name: -sizes[name]):
        min(members, key=lambda fold: sum(sizes[each] for each in fold)).append(name)
    return [np.flatnonzero(np.isin(labels, fold)) for fold in members]


def _check(n_folds: int, number: int, what: str) -> None:
    if type(n_folds) is not int or n_folds < 2:
        raise ValueError(f"folds is {n_folds!r}, expected a whole number from 2 on.")
    if number < n_folds:
        raise ValueError(f"folds is {n_folds}, more than there are {what} ({number}).")
