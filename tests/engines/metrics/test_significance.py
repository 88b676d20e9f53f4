import itertools
import math

import numpy as np
import pytest
from scipy import stats

from clinbundles.engines.metrics.significance import holm, say_seeds, sign_flip_p, smallest_difference


def test_of_few_groups_all_flips_are_counted() -> None:
    differences = np.array([0.3, 0.1, 0.2, -0.05, 0.4])
    means = [np.mean(differences * signs) for signs in itertools.product((1, -1), repeat=5)]
    assert sign_flip_p(differences) == pytest.approx(np.mean(np.abs(means) >= differences.mean() - 1e-12))
    assert sign_flip_p(np.ones(4)) == 2 / 2**4
    assert sign_flip_p(-np.ones(4)) == 2 / 2**4


def test_of_many_groups_ten_thousand_random_flips_come_near_and_a_seed_repeats_them() -> None:
    differences = np.random.default_rng(0).normal(0.3, 1, size=60)
    p = sign_flip_p(differences)
    assert p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.01)
    assert p == sign_flip_p(differences)
    assert p != sign_flip_p(differences, seed=1)
    assert sign_flip_p(np.ones(60)) == pytest.approx(2 / 10_001)


def test_no_difference_is_no_evidence_and_one_group_no_test() -> None:
    assert sign_flip_p(np.zeros(5)) == 1
    assert math.isnan(sign_flip_p(np.array([0.2])))
    assert math.isnan(sign_flip_p(np.array([0.2, np.nan, 0.1])))


def test_where_there_is_no_effect_one_in_twenty_is_called_one() -> None:
    rng = np.random.default_rng(0)
    p = np.array([sign_flip_p(rng.normal(size=6)) for _ in range(600)])
    assert 0.02 < (p <= 0.05).mean() < 0.07


def test_holm_multiplies_by_the_comparisons_that_are_left() -> None:
    assert holm([0.01, 0.04, math.nan, 0.03]) == pytest.approx([0.03, 0.06, math.nan, 0.06], nan_ok=True)
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert holm([]).tolist() == []


def test_the_smallest_difference_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(0)
    assert smallest_difference(rng.normal(size=400), np.zeros(1)) == pytest.approx(2.8 / 20, rel=0.1)
    samples = rng.normal(2.8 / 20, 1, size=(500, 400))
    assert (stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.05)


def test_groups_and_seeds_both_blur_a_difference() -> None:
    by_group, by_seed = np.array([0.1, 0.2, 0.3]), np.array([0.1, 0.3])
    errors = stats.sem(by_group), stats.sem(by_seed)
    assert smallest_difference(by_group, by_seed) == pytest.approx(2.8 * math.hypot(*errors))
    assert smallest_difference(np.zeros(1), by_seed) == pytest.approx(2.8 * errors[1])
    assert math.isnan(smallest_difference(np.zeros(1), np.zeros(1)))


def test_seeds_alone_agree_by_chance_as_often_as_cards_fall_that_way() -> None:
    assert say_seeds(2, 2) == "2 seeds: both beat both by chance in 1 of 6"
    assert say_seeds(3, 3) == "3 seeds: all beat all by chance in 1 of 20"
    assert say_seeds(1, 1) == "1 seed: one beats one by chance in 1 of 2"
    orders = [order for order in itertools.permutations(range(6)) if set(order[:3]) == {3, 4, 5}]
    assert math.factorial(6) / len(orders) == 20
