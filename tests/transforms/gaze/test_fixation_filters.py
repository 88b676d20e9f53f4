from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinbundles.transforms.gaze.fixation_filters import angular_velocity, idt_fixations, ivt_fixations
from clinbundles.transforms.gaze.samples import Display, GazeSamples

# One pixel is 0.25 mm; at 573 mm a degree is about 40 pixels.
DISPLAY = Display(size_px=(2000, 1000), size_mm=(500, 250))
RATE_HZ = 120
FILTERS = [ivt_fixations, idt_fixations]


def gaze(*stays, noise_px=0.0, rate_hz=RATE_HZ):
    """Samples that stay at x, y for n samples, one stay after the other, with a jump between; x None is a gap."""
    rows = [[np.nan, np.nan] if x is None else [x, y] for x, y, n in stays for _ in range(n)]
    xy = np.asarray(rows, float) + np.random.RandomState(0).normal(0, noise_px, (len(rows), 2))
    time = np.arange(len(xy)) * 1000 / rate_hz
    return GazeSamples(time_ms=time, xy_px=xy, distance_mm=np.full(len(xy), 573.0), display=DISPLAY)


@pytest.mark.parametrize("find", FILTERS)
def test_two_stays_with_a_jump_between_are_two_fixations(find):
    fixations = find(gaze((400, 300, 36), (1200, 700, 60)))
    np.testing.assert_allclose(fixations[:, :2], [[400, 300], [1200, 700]])
    # The velocity window costs I-VT a sample at each end of a stay; the other filter keeps them all.
    np.testing.assert_allclose(fixations[:, 2], [300, 500], atol=2.1 * 1000 / RATE_HZ)


@pytest.mark.parametrize("rate_hz", [60, 120, 300, 1000])
@pytest.mark.parametrize("find", FILTERS)
def test_the_sampling_rate_does_not_change_the_fixations(find, rate_hz):
    seconds = [0.4, 0.7]
    fixations = find(gaze((400, 300, int(0.4 * rate_hz)), (1200, 700, int(0.7 * rate_hz)), rate_hz=rate_hz))
    np.testing.assert_allclose(fixations[:, :2], [[400, 300], [1200, 700]])
    np.testing.assert_allclose(fixations[:, 2], 1000 * np.array(seconds), atol=max(24, 2.1 * 1000 / rate_hz))


def test_the_velocity_of_a_steady_turn_is_its_speed():
    n = 61
    degrees = np.linspace(-5, 5, n)
    x = 1000 + 573 * np.tan(np.radians(degrees)) / 0.25
    turn = replace(gaze((0, 0, n)), xy_px=np.column_stack([x, np.full(n, 500.0)]))
    speed = angular_velocity(turn, window_ms=20, max_gap_ms=75)
    np.testing.assert_allclose(speed[1:-1], 10 / ((n - 1) / RATE_HZ), rtol=1e-6)
    assert np.isnan(speed[[0, -1]]).all()


@pytest.mark.parametrize(("degrees_per_s", "count"), [(20, 1), (40, 0)])
def test_a_slow_pursuit_is_a_fixation_and_a_fast_one_is_not(degrees_per_s, count):
    n = 60
    x = 1000 + 573 * np.tan(np.radians(np.arange(n) / RATE_HZ * degrees_per_s - 5)) / 0.25
    pursuit = replace(gaze((0, 0, n)), xy_px=np.column_stack([x, np.full(n, 500.0)]))
    assert len(ivt_fixations(pursuit)) == count


@pytest.mark.parametrize(("gap", "count"), [(4, 1), (12, 2)])
def test_a_blink_splits_a_fixation_only_if_it_is_long(gap, count):
    fixations = ivt_fixations(gaze((400, 300, 24), (None, None, gap), (400, 300, 24)))
    assert len(fixations) == count
    assert fixations[:, 2].sum() <= (48 + gap) * 1000 / RATE_HZ


@pytest.mark.parametrize(("step_px", "count"), [(16, 1), (24, 2)])
def test_neighbours_are_joined_within_half_a_degree(step_px, count):
    fixations = ivt_fixations(gaze((1000, 500, 24), (None, None, 3), (1000 + step_px, 500, 24)))
    assert len(fixations) == count


def test_a_stay_shorter_than_the_limit_is_dropped():
    stays = gaze((400, 300, 36), (800, 300, 7), (1200, 700, 36))
    assert len(ivt_fixations(stays)) == 2
    assert len(ivt_fixations(stays, min_duration_ms=30)) == 3


def test_a_median_holds_noisy_fixations_together():
    noisy = gaze((400, 300, 120), (1200, 700, 120), noise_px=10)
    rough, steady = ivt_fixations(noisy), ivt_fixations(noisy, median_samples=5)
    assert len(rough) > 4
    assert len(steady) == 2
    np.testing.assert_allclose(steady[:, :2], [[400, 300], [1200, 700]], atol=5)


def test_gaze_spread_over_more_than_the_dispersion_is_no_fixation():
    corners = [(1000 + dx, 500 + dy, 1) for _ in range(10) for dx, dy in ((0, 0), (30, 0), (30, 30), (0, 30))]
    assert len(idt_fixations(gaze(*corners))) == 0
    assert len(idt_fixations(gaze(*corners), dispersion_deg=2.0)) == 1


@pytest.mark.parametrize("find", FILTERS)
def test_nothing_comes_of_a_gap_or_a_single_sample(find):
    assert find(gaze((None, None, 50))).shape == (0, 3)
    assert find(gaze((400, 300, 1))).shape == (0, 3)


@pytest.mark.parametrize("find", FILTERS)
def test_a_pause_in_the_recording_ends_a_fixation(find):
    stay = gaze((400, 300, 60))
    late = stay.time_ms + np.where(np.arange(60) < 30, 0, 3000)
    fixations = find(replace(stay, time_ms=late))
    assert len(fixations) == 2
    assert fixations[:, 2].max() < 300


@pytest.mark.parametrize("find", FILTERS)
def test_the_input_stays_as_it_was(find):
    stay = gaze((400, 300, 36), (None, None, 5), (1200, 700, 36), noise_px=2)
    before = stay.xy_px.copy()
    find(stay)
    np.testing.assert_array_equal(stay.xy_px, before)


@pytest.mark.parametrize(
    "wrong", [{"velocity_deg_per_s": 0}, {"window_ms": np.nan}, {"median_samples": 2}, {"merge_gap_ms": -1}]
)
def test_a_senseless_setting_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ivt_fixations(gaze((400, 300, 36)), **wrong)


stays = st.lists(st.tuples(st.floats(600, 1400), st.floats(300, 700), st.integers(1, 40)), min_size=1, max_size=6)


@pytest.mark.parametrize("find", FILTERS)
@settings(deadline=None, max_examples=30)
@given(stays=stays, later=st.floats(0, 1e6))
def test_a_later_start_changes_nothing(find, stays, later):
    recorded = gaze(*stays, noise_px=3)
    fixations = find(recorded)
    np.testing.assert_allclose(find(replace(recorded, time_ms=recorded.time_ms + later)), fixations, atol=1e-4)


@pytest.mark.parametrize("find", FILTERS)
@settings(deadline=None, max_examples=30)
@given(stays=stays, dx=st.floats(-500, 500), dy=st.floats(-200, 200))
def test_fixations_move_with_the_gaze_and_its_display(find, stays, dx, dy):
    # The angle depends on where on the display one looks; a display that moves along keeps it.
    recorded = gaze(*stays, noise_px=3)
    wider = Display(size_px=(2000 + 2 * dx, 1000 + 2 * dy), size_mm=(500 + 0.5 * dx, 250 + 0.5 * dy))
    moved = replace(recorded, xy_px=recorded.xy_px + np.array([dx, dy]), display=wider)
    np.testing.assert_allclose(find(moved), find(recorded) + np.array([dx, dy, 0]), atol=1e-6)


@pytest.mark.parametrize("find", FILTERS)
@settings(deadline=None, max_examples=30)
@given(stays=stays)
def test_fixations_never_last_longer_than_the_recording_and_lie_within_the_gaze(find, stays):
    recorded = gaze(*stays, noise_px=3)
    fixations = find(recorded)
    assert fixations[:, 2].sum() <= len(recorded) * 1000 / RATE_HZ + 1e-6
    assert (fixations[:, :2] >= recorded.xy_px.min(axis=0) - 1e-9).all()
    assert (fixations[:, :2] <= recorded.xy_px.max(axis=0) + 1e-9).all()


@settings(deadline=None, max_examples=30)
@given(stays=stays)
def test_the_same_gaze_backwards_has_the_same_fixations(stays):
    recorded = gaze(*stays, noise_px=1)
    mirrored = replace(recorded, xy_px=recorded.xy_px[::-1].copy())
    fixations = ivt_fixations(recorded, merge_gap_ms=0, min_duration_ms=0)
    np.testing.assert_allclose(ivt_fixations(mirrored, merge_gap_ms=0, min_duration_ms=0)[::-1], fixations, atol=1e-6)
