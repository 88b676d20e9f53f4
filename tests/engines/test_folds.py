"""Tests of folds: contiguous ones, and ones that no group crosses."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinbundles.engines.folds import folds_by_group, folds_in_order


@pytest.mark.parametrize(("n_images", "size"), [(20, 4), (23, 4), (5, 1)])
def test_folds_in_order_are_equal_and_leave_the_rest_at_the_end_out(n_images: int, size: int) -> None:
    folds = folds_in_order(n_images, 5)
    assert [len(fold) for fold in folds] == [size] * 5
    assert np.concatenate(folds).tolist() == list(range(5 * size))


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), min_size=5, max_size=40), st.integers(2, 5), st.integers(0, 99))
def test_each_group_is_in_one_fold_and_folds_differ_by_no_more_than_a_group(
    sizes: list[int], n_folds: int, seed: int
) -> None:
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes)).tolist()
    folds = folds_by_group(groups, n_folds, seed=seed)
    assert sorted(np.concatenate(folds).tolist()) == list(range(sum(sizes)))
    homes = Counter(group for fold in folds for group in {groups[k] for k in fold})
    assert set(homes.values()) == {1}
    lengths = [len(fold) for fold in folds]
    assert min(lengths) > 0
    assert max(lengths) - min(lengths) <= max(sizes)


def test_the_seed_deals_groups_of_one_size() -> None:
    groups = [f"p{k}" for k in range(30)]
    first, again, other = (np.concatenate(folds_by_group(groups, 5, seed=seed)).tolist() for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("cut", "sentence"),
    [
        (lambda: folds_in_order(4, 5), "folds is 5, more than there are images (4)."),
        (lambda: folds_by_group(["a", "b", "a"], 3), "folds is 3, more than there are groups, such as patients (2)."),
        (lambda: folds_in_order(4, 1), "folds is 1, expected a whole number from 2 on."),
        (lambda: folds_in_order(4, 2.5), "folds is 2.5, expected a whole number from 2 on."),
    ],
)
def test_too_few_images_or_groups_or_folds_are_refused(cut: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        cut()
