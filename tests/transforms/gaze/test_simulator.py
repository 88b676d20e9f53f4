from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clinbundles.transforms.gaze.simulator import DURATION_RANGE_MS, PROFILES, fixation_statistics, simulate_fixations

KVASIR = Path(__file__).parents[3].parent / "shared" / "data" / "kvasir_seg" / "Kvasir-SEG" / "masks"

# Published for Kvasir-SEG: (value, tolerance); offsets in fractions of the image, medians of inside last.
PUBLISHED = {
    "expert": {
        "offset": (0.041, 0.004),
        "dx_sd": (0.029, 0.004),
        "dy_sd": (0.036, 0.004),
        "inside": (0.85, 0.03),
        "inside_median": (0.90, 0.03),
        "seconds": (8.8, 0.3),
    },
    "webcam": {
        "offset": (0.267, 0.02),
        "dx_sd": (0.211, 0.02),
        "dy_sd": (0.189, 0.02),
        "inside": (0.32, 0.05),
        "inside_median": (0.17, 0.04),
    },
}


def simulate(mask, profile="expert", seed=0):
    return simulate_fixations(mask, profile=profile, rng=np.random.RandomState(seed))


def ellipse(height, width, *, centre, radius):
    rows, columns = np.mgrid[:height, :width]
    return ((rows / height - centre[1]) / radius[1]) ** 2 + ((columns / width - centre[0]) / radius[0]) ** 2 <= 1


def synthetic_masks(count):
    """Ellipses with the spread of area and place that polyps have in Kvasir-SEG: area 0.154, median 0.114."""
    rng = np.random.RandomState(1)
    masks = []
    while len(masks) < count:
        area = np.exp(rng.normal(np.log(0.114), 0.85))
        aspect = np.exp(rng.normal(0, 0.2))
        radius = np.sqrt(area / np.pi) * np.array([1 / aspect, aspect])
        centre = rng.normal((0.55, 0.51), 0.145)
        mask = ellipse(108, 128, centre=centre, radius=radius)
        if mask.any() and area < 0.8:
            masks.append(mask)
    return masks


def measure(masks, profile, seed=0):
    rng = np.random.RandomState(seed)
    each = [fixation_statistics(simulate_fixations(m, profile=profile, rng=rng), m) for m in masks]
    table = {name: np.array([statistics[name] for statistics in each]) for name in each[0]}
    return {
        "offset": table["offset"].mean(),
        "dx_sd": table["dx"].std(),
        "dy_sd": table["dy"].std(),
        "inside": table["inside"].mean(),
        "inside_median": np.median(table["inside"]),
        "seconds": table["seconds"].mean(),
    }


def assert_published(measured, profile, slack=1.0):
    for name, (value, tolerance) in PUBLISHED[profile].items():
        assert measured[name] == pytest.approx(value, abs=slack * tolerance), (profile, name, measured)


@pytest.mark.parametrize("profile", ["expert", "webcam"])
def test_gaze_on_synthetic_polyps_has_the_published_statistics(profile):
    # Ellipses are not the polyps the profiles were fitted on: compact, one an image.
    assert_published(measure(synthetic_masks(600), profile), profile, slack=1.5)


@pytest.mark.parametrize("profile", ["expert", "webcam"])
def test_gaze_on_kvasir_has_the_published_statistics(profile):
    if not KVASIR.is_dir():
        pytest.skip(f"no Kvasir-SEG masks in {KVASIR}")
    # A quarter of the pixels of each axis is enough for fractions, and quick.
    masks = [np.asarray(Image.open(path).convert("L"))[::4, ::4] >= 128 for path in sorted(KVASIR.glob("*.png"))]
    assert len(masks) == 1000
    assert_published(measure(masks, profile), profile)


@pytest.mark.parametrize("profile", PROFILES)
def test_fixations_stay_in_the_image_and_in_the_range_of_human_durations(profile):
    mask = ellipse(60, 80, centre=(0.1, 0.9), radius=(0.2, 0.2))
    for seed in range(50):
        fixations = simulate(mask, profile, seed)
        assert fixations.shape[0] >= 1
        assert fixations.shape[1] == 3
        assert ((fixations[:, :2] >= 0) & (fixations[:, :2] <= 1)).all()
        assert ((fixations[:, 2] >= DURATION_RANGE_MS[0]) & (fixations[:, 2] <= DURATION_RANGE_MS[1])).all()


def test_the_same_state_gives_the_same_gaze_and_another_state_another():
    mask = ellipse(60, 80, centre=(0.5, 0.5), radius=(0.2, 0.2))
    np.testing.assert_array_equal(simulate(mask, seed=3), simulate(mask, seed=3))
    first, second = simulate(mask, seed=3), simulate(mask, seed=4)
    assert first.shape != second.shape or not np.allclose(first, second)


def test_the_mask_is_left_alone_and_may_hold_integers():
    mask = ellipse(60, 80, centre=(0.5, 0.5), radius=(0.2, 0.2))
    numbers = mask.astype(np.uint8) * 255
    numbers.flags.writeable = False
    np.testing.assert_array_equal(simulate(numbers), simulate(mask))


def test_the_polyp_is_found_where_it_lies_in_x_and_y():
    mask = ellipse(50, 100, centre=(0.8, 0.3), radius=(0.1, 0.15))
    means = [np.average(f[:, :2], axis=0, weights=f[:, 2]) for f in (simulate(mask, seed=seed) for seed in range(40))]
    np.testing.assert_allclose(np.mean(means, axis=0), (0.8, 0.3), atol=0.04)


def test_an_empty_mask_is_searched_over_the_whole_frame():
    fixations = np.concatenate([simulate(np.zeros((60, 80), bool), seed=seed) for seed in range(40)])
    points = fixations[:, :2]
    quadrants = np.bincount(2 * (points[:, 0] > 0.5) + (points[:, 1] > 0.5), minlength=4) / len(points)
    np.testing.assert_allclose(quadrants, 0.25, atol=0.05)
    assert (points.std(axis=0) > 0.18).all()


def test_even_an_expert_sometimes_looks_elsewhere():
    mask = ellipse(60, 80, centre=(0.5, 0.5), radius=(0.15, 0.15))
    distances = np.concatenate([np.hypot(*(simulate(mask, seed=seed)[:, :2] - 0.5).T) for seed in range(40)])
    assert 0.02 < (distances > 0.3).mean() < 0.15


def test_several_polyps_are_visited_in_proportion_to_their_area():
    large = ellipse(120, 160, centre=(0.25, 0.5), radius=(0.15, 0.3))
    small = ellipse(120, 160, centre=(0.8, 0.5), radius=(0.075, 0.2))
    points = np.concatenate([simulate(large | small, seed=seed)[:, :2] for seed in range(60)])
    near_large = (np.hypot((points[:, 0] - 0.25) / 0.2, (points[:, 1] - 0.5) / 0.35) < 1).sum()
    near_small = (np.hypot((points[:, 0] - 0.8) / 0.15, (points[:, 1] - 0.5) / 0.3) < 1).sum()
    assert near_large / near_small == pytest.approx(large.sum() / small.sum(), rel=0.25)


def test_a_webcam_loses_more_gaze_than_a_laboratory_tracker():
    mask = ellipse(60, 80, centre=(0.5, 0.5), radius=(0.2, 0.2))
    counts = {name: np.mean([len(simulate(mask, name, seed)) for seed in range(40)]) for name in PROFILES}
    assert counts["webcam"] < 0.85 * counts["expert"]


def test_looking_around_is_done_in_shorter_fixations():
    empty, full = np.zeros((60, 80), bool), np.ones((60, 80), bool)
    searching = np.concatenate([simulate(empty, seed=seed)[:, 2] for seed in range(20)])
    dwelling = np.concatenate([simulate(full, seed=seed)[:, 2] for seed in range(20)])
    assert searching.mean() < 0.9 * dwelling.mean()


def test_masks_of_one_pixel_or_one_image_row_work():
    single = np.zeros((40, 50), bool)
    single[0, 49] = True
    assert len(simulate(single)) >= 1
    assert len(simulate(np.ones((1, 1), bool), "webcam")) >= 1


def test_statistics_of_a_known_gaze_are_those_computed_by_hand():
    mask = np.zeros((10, 20), bool)
    mask[2:4, 10:14] = True  # centroid at x = 12 / 20, y = 3 / 10
    fixations = np.array([[0.6, 0.3, 300.0], [0.9, 0.7, 100.0]])
    measured = fixation_statistics(fixations, mask)
    assert measured["dx"] == pytest.approx(0.075)
    assert measured["dy"] == pytest.approx(0.1)
    assert measured["offset"] == pytest.approx(0.125)
    assert measured["inside"] == pytest.approx(0.75)
    assert measured["seconds"] == pytest.approx(0.4)


def test_bad_input_is_named():
    rng = np.random.RandomState(0)
    with pytest.raises(ValueError, match=r"'novice' is unknown: choose one of expert, webcam"):
        simulate_fixations(np.ones((4, 4)), profile="novice", rng=rng)
    with pytest.raises(ValueError, match=r"shape \(1, 4, 4\)"):
        simulate_fixations(np.ones((1, 4, 4)), profile="expert", rng=rng)
    with pytest.raises(ValueError, match=r"shape \(0, 4\)"):
        simulate_fixations(np.ones((0, 4)), profile="expert", rng=rng)
    with pytest.raises(ValueError, match="no foreground"):
        fixation_statistics(np.array([[0.5, 0.5, 100]]), np.zeros((4, 4)))
    with pytest.raises(ValueError, match="fixations is empty"):
        fixation_statistics(np.empty((0, 3)), np.ones((4, 4)))
