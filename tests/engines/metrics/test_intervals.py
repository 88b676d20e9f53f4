import math

import numpy as np
import pytest
from scipy import stats

from clinbundles.engines.metrics.intervals import (
    draw_groups,
    draw_one_by_one,
    interval,
    mean_interval,
    number_groups,
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
    assert mean_interval(differences, None, draw=draw_one_by_one) == pytest.approx(published, abs=1e-12)


def test_one_by_one_the_draws_are_those_of_scipy() -> None:
    values = np.random.default_rng(3).normal(size=17)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert mean_interval(values, None, draw=draw_one_by_one) == pytest.approx([*expected], abs=1e-12)


def test_of_fewer_than_ten_groups_the_interval_is_students_over_their_means() -> None:
    values = np.array([0.1, 0.3, 0.4, 0.6, 0.7, 0.9])  # two eyes of three children
    expected = stats.ttest_1samp([0.2, 0.5, 0.8], 0).confidence_interval()
    assert mean_interval(values, np.array([0, 0, 1, 1, 2, 2])) == pytest.approx([*expected])
    assert np.ptp(mean_interval(values, None)) < np.ptp(expected)


def test_shares_of_few_groups_and_means_of_one_or_of_nothing_have_no_interval() -> None:
    for values, groups in (
        (np.array([True, False, True]), None),
        (np.array([1.0, 0.0]), np.array([5, 5])),
        (np.array([]), None),
    ):
        assert np.isnan(mean_interval(values, groups)).all()


def test_values_that_are_not_defined_are_left_out_of_an_interval_and_none_in_json() -> None:
    assert interval(np.array([np.nan, 1.0, 1.0])).tolist() == [1, 1]
    assert np.isnan(interval(np.full(4, np.nan))).all()
    assert with_interval(0.123456, np.array([np.nan, 1])) == {"value": 0.1235, "low": None, "high": 1.0}
