import math

import numpy as np
import pytest
from scipy import stats

from clinbundles.engines.metrics.intervals import (
    Resampled,
    describe_intervals,
    draw_groups,
    draw_one_by_one,
    interval,
    interval_of,
    mean_interval,
    mean_of,
    number_groups,
    ratio_of,
    resample,
    resample_mean,
    share_interval,
    with_interval,
)


def test_images_without_a_group_are_groups_of_their_own() -> None:
    assert number_groups(None, 5).tolist() == [0, 1, 2, 3, 4]
    first, second, third, fourth = number_groups(np.array([4, np.nan, 4, np.nan]), 4)
    assert first == third
    assert len({first, second, fourth}) == 3


@pytest.mark.parametrize("draw", [draw_groups, draw_one_by_one])
def test_a_resample_has_as_many_groups_as_the_set_each_as_often_as_any_other(draw) -> None:
    draws = draw(12, seed=1)
    assert (draws.sum(1) == 12).all()
    assert draws.mean(0) == pytest.approx(np.ones(12), abs=0.1)
    assert (draws == draw(12, seed=1)).all()
    assert (draws != draw(12, seed=2)).any()


def test_the_interval_of_a_mean_is_that_of_independent_groups() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(loc=3, size=400)
    low, high = mean_interval(values, None)
    half = 1.96 * values.std() / math.sqrt(400)
    assert [low, high] == pytest.approx([values.mean() - half, values.mean() + half], abs=0.2 * half)
    # Four equal images of a patient are no more than one: the interval is as wide as for 100 patients.
    repeated = mean_interval(np.repeat(values[:100], 4), np.repeat(np.arange(100), 4))
    assert np.ptp(repeated) == pytest.approx(np.ptp(mean_interval(values[:100], None)), rel=1e-3)


def test_intervals_of_means_stay_those_of_published_results() -> None:
    rng = np.random.default_rng(5)
    values, differences = rng.normal(size=60), rng.normal(size=(25, 2)).mean(1) - rng.normal(size=(25, 2)).mean(1)
    assert mean_interval(values, np.arange(60) // 4, seed=2) == pytest.approx([-0.4307, 0.0551], abs=5e-5)
    assert mean_interval(values > 0, None) == pytest.approx([0.2833, 0.5167], abs=5e-5)
    published = [-0.5867562842457494, 0.13380925851976685]
    assert interval_of(resample_mean(differences, None, draw=draw_one_by_one)) == pytest.approx(published, abs=1e-12)


def test_one_by_one_the_draws_are_those_of_scipy() -> None:
    values = np.random.default_rng(3).normal(size=17)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert interval_of(resample_mean(values, None, draw=draw_one_by_one)) == pytest.approx([*expected], abs=1e-12)


def test_of_fewer_than_ten_groups_the_interval_is_students_over_their_means() -> None:
    values = np.array([0.1, 0.3, 0.4, 0.6, 0.7, 0.9])  # two eyes of three children
    expected = stats.ttest_1samp([0.2, 0.5, 0.8], 0).confidence_interval()
    assert mean_interval(values, np.array([0, 0, 1, 1, 2, 2])) == pytest.approx([*expected])
    assert np.ptp(mean_interval(values, None)) < np.ptp(expected)


def test_means_of_one_group_or_of_nothing_have_no_interval() -> None:
    for values, groups in ((np.array([1.0, 0.0]), np.array([5, 5])), (np.array([]), None), (np.array([True]), None)):
        assert np.isnan(mean_interval(values, groups)).all()


def test_the_interval_holds_the_mean_over_images_also_where_a_group_has_most_of_them() -> None:
    values, groups = np.repeat([1.0, 0, 0, 0, 0, 0, 0, 0, 0], [92, 1, 1, 1, 1, 1, 1, 1, 1]), np.repeat(range(9), 1)
    low, high = mean_interval(values, np.repeat(groups, [92, *[1] * 8]))
    assert (low < 0, high) == (True, pytest.approx(0.92))


def test_a_share_of_few_groups_stays_within_0_and_1() -> None:
    assert mean_interval(np.array([True, True, False]), None).tolist() == [0, 1]
    low, high = mean_interval(np.array([True] * 30 + [False] * 2), np.arange(32) // 8)
    assert 0.5 < low < 30 / 32 < high == 1


@pytest.mark.parametrize("n_groups", [4, 54])
def test_a_share_of_0_or_1_has_wilsons_interval_over_the_groups_and_not_over_the_images(n_groups: int) -> None:
    groups, z = np.arange(8 * n_groups) // 8, stats.norm.ppf(0.975)
    end = z**2 / (n_groups + z**2)  # Wilson's of no success
    assert mean_interval(np.zeros(8 * n_groups, dtype=bool), groups) == pytest.approx([0, end])
    assert mean_interval(np.ones(8 * n_groups, dtype=bool), groups) == pytest.approx([1 - end, 1])
    assert np.isnan(share_interval(0, 0)).all()


def test_a_score_that_is_no_mean_has_an_interval_from_the_set_without_each_group() -> None:
    values = np.array([0.2, 0.5, 0.9, 0.4])
    mean = resample(lambda draws: {"mean": draws @ values / draws.sum(1)}, 4)["mean"]
    assert mean.group_values == pytest.approx(values)
    assert interval_of(mean) == pytest.approx(mean_interval(values, None))
    square = resample(lambda draws: {"square": (draws @ values / draws.sum(1)) ** 2}, 4)["square"]
    half = np.ptp(interval_of(mean)) / 2  # the slope of the square at 0.5 is 1
    assert np.ptp(interval_of(square)) / 2 == pytest.approx(half, rel=0.05)


def test_a_score_that_one_group_alone_makes_possible_has_no_interval_of_few_groups() -> None:
    only = resample(lambda draws: {"score": np.where(draws[:, 0] > 0, 0.5, np.nan)}, 4)["score"]
    assert only.value == 0.5
    assert np.isnan(interval_of(only)).all()


@pytest.mark.parametrize("n_groups", [5, 40])
def test_ratios_and_averages_are_those_of_the_resamples(n_groups: int) -> None:
    values = np.random.default_rng(0).uniform(0.5, 1, n_groups)
    one, double = resample_mean(values, None), resample_mean(2 * values, None)
    ratio = ratio_of(one, double)
    assert ratio.value == 0.5
    assert interval_of(ratio) == pytest.approx([0.5, 0.5])
    assert interval_of(mean_of([one, double])) == pytest.approx(1.5 * interval_of(one))
    assert np.isnan(ratio_of(one, Resampled(*(0 * part for part in one))).value)


def test_an_interval_says_over_what_it_is() -> None:
    assert describe_intervals(4) == "t interval over 4 groups"
    assert describe_intervals(12, "patients") == "bootstrap interval over 12 patients"
    assert describe_intervals(1) == "no interval of a single one of the groups"


@pytest.mark.parametrize(
    ("sizes", "lowest"),
    [([1, 1], 0.93), ([2] * 4, 0.93), ([1, 2, 3, 10], 0.93), ([3] * 9, 0.93), ([3] * 10, 0.87), ([1, 2, 6] * 10, 0.9)],
)
def test_the_interval_of_the_mean_of_correlated_images_covers_the_truth(sizes: list[int], lowest: float) -> None:
    """A thousand data sets of a few patients, whose images share half of their variance."""
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(len(sizes)), sizes)
    hits = 0
    for _ in range(1000 if len(sizes) < 10 else 600):
        values = rng.normal(size=len(sizes))[groups] + rng.normal(size=len(groups))
        resampled = resample_mean(values, groups, draw=lambda n, seed: draw_groups(n, n_resamples=400, seed=seed))
        low, high = interval_of(resampled)
        hits += low <= 0 <= high
    assert lowest < hits / (1000 if len(sizes) < 10 else 600) < 0.99


def test_images_taken_for_groups_cover_far_less() -> None:
    """Two resampled images of two patients, called 95 %, covered half."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(1000):
        values = rng.normal(size=4)[np.arange(8) // 2] + 0.3 * rng.normal(size=8)
        low, high = np.quantile(draw_groups(8, n_resamples=200) @ values / 8, [0.025, 0.975])
        hits += low <= 0 <= high
    assert hits < 800


@pytest.mark.parametrize(("n_groups", "lowest"), [(4, 0.92), (30, 0.9)])
def test_the_interval_of_a_ratio_of_sums_covers_the_truth(n_groups: int, lowest: float) -> None:
    """A Dice pooled over patients, from counts that vary by patient."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(500):
        area = rng.uniform(50, 150, n_groups)
        overlap = area * np.clip(rng.normal(0.7, 0.1, n_groups), 0, 1)
        pooled = resample(
            lambda draws, area=area, overlap=overlap: {"dice": (draws @ overlap) / (draws @ area)},
            n_groups,
            draw=lambda n, seed: draw_groups(n, n_resamples=400, seed=seed),
        )["dice"]
        low, high = interval_of(pooled, units=n_groups)
        hits += low <= 0.7 <= high
    assert lowest < hits / 500 < 0.99


def test_values_that_are_not_defined_are_left_out_of_an_interval_and_none_in_json() -> None:
    assert interval(np.array([np.nan, 1.0, 1.0])).tolist() == [1, 1]
    assert np.isnan(interval(np.full(4, np.nan))).all()
    assert with_interval(0.123456, np.array([np.nan, 1])) == {"value": 0.1235, "low": None, "high": 1.0}
