from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinbundles.transforms.gaze.samples import (
    Display,
    GazeSamples,
    RecordingSetup,
    angle_deg,
    average_eyes,
    display_to_image,
)

DISPLAY = Display(size_px=(1000, 500), size_mm=(500, 250))


def samples(time_ms, **changes):
    n = len(time_ms)
    values = {"xy_px": np.zeros((n, 2)), "distance_mm": np.full(n, 600.0), "display": DISPLAY} | changes
    return GazeSamples(time_ms=np.asarray(time_ms, float), **values)


def test_the_period_is_exact_for_times_rounded_to_milliseconds_and_blind_to_a_pause():
    time = np.round(np.arange(600) * 1000 / 120)
    time[300:] += 5000
    assert samples(time).period_ms == pytest.approx(1000 / 120, rel=1e-2)


def test_time_that_runs_backwards_is_refused_with_both_times():
    with pytest.raises(ValueError, match="backwards, from 20 to 10"):
        samples([0, 20, 10])


def test_a_display_without_size_is_refused_by_name():
    with pytest.raises(ValueError, match="size_mm"):
        Display(size_px=(1000, 500), size_mm=(0, 250))


def test_one_degree_at_573_mm_is_one_centimetre():
    eye = np.array([[0, 0, 572.9]]), np.array([[10.0, 0, 572.9]])
    assert angle_deg(*eye) == pytest.approx(1.0, abs=1e-3)


def test_the_line_of_sight_to_the_centre_of_the_display_is_straight():
    line = samples([0.0], xy_px=np.array([[500.0, 250.0]])).gaze_mm()
    np.testing.assert_allclose(line, [[0, 0, 600]])


def test_an_eye_that_is_missing_leaves_the_mean_to_the_other():
    gap = [np.nan, np.nan]
    left, right = np.array([[1.0, 2], [1, 2], gap, gap]), np.array([[3.0, 4], gap, [3, 4], gap])
    np.testing.assert_array_equal(average_eyes(left, right), [[2, 3], [1, 2], [3, 4], gap])


@given(st.floats(0, 1), st.floats(0, 1), st.floats(1, 3000), st.floats(1, 3000), st.floats(-500, 500))
def test_a_point_goes_from_the_image_to_the_display_and_back(x, y, width, height, corner):
    shown = np.array([[corner + x * width, corner + y * height]])
    back = display_to_image(shown, (corner, corner, width, height))
    np.testing.assert_allclose(back, [[x, y]], atol=1e-9)


def test_a_gap_in_the_measured_distance_is_filled_and_the_callers_distance_goes_before_it():
    measured = np.array([600.0, np.nan, 620.0, 0.0])
    np.testing.assert_array_equal(RecordingSetup(path=Path("a")).distances_mm(measured), [600, 610, 620, 610])
    np.testing.assert_array_equal(RecordingSetup(path=Path("a"), viewing_distance_mm=500).distances_mm(measured), 500)


@pytest.mark.parametrize(
    "wrong",
    [
        {"screen_size_px": (1920,)},
        {"screen_size_mm": (0, 300)},
        {"viewing_distance_mm": -600},
        {"image_rect_px": (0, 0, 100)},
        {"image_rect_px": (0, 0, 100, 0)},
        {"image_rect_px": ["left", 0, 100, 100]},
        {"screen_size_mm": ["531x299"]},
    ],
)
def test_a_senseless_setup_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RecordingSetup(path=Path("a"), **wrong)


def test_all_that_a_file_does_not_tell_is_asked_for_at_once_by_flags():
    setup = RecordingSetup(path=Path("a"), screen_size_px=(1920, 1080))
    with pytest.raises(ValueError, match="image_name, screen_size_mm: give --image_name NAME --screen_size_mm W,H"):
        setup.require("image_name", "screen_size_px", "screen_size_mm")
