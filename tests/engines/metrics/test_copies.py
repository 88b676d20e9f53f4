from itertools import product

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clinbundles.engines.metrics.copies import (
    APART_MM,
    BLURS,
    GAIN,
    LEAST_CONTRAST,
    OFFSET,
    ORIENTATIONS,
    SHIFT,
    SHIFTS,
    SIGMA,
    FeatureDistance,
    PixelDistance,
    aligned,
    nearest,
    neighbours,
    number_patients,
    orient,
    reduced,
    reference,
    shifted,
    smoothed,
)


def blobs(count: int, *, seed: int = 0, side: int = 32, channels: int = 1) -> torch.Tensor:
    """Smooth images that differ."""
    noise = torch.rand(count, channels, 6, 6, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.interpolate(noise, (side, side), mode="bicubic").clamp(-1, 1)


def rolled(images: torch.Tensor, dy: int, dx: int) -> torch.Tensor:
    return torch.roll(images, (dy, dx), (-2, -1))


def test_orientations_are_the_eight_of_a_square() -> None:
    image = torch.arange(9.0).reshape(1, 3, 3)
    turned = {tuple(orient(image, k).flatten().tolist()) for k in range(ORIENTATIONS)}
    assert len(turned) == 8
    assert torch.equal(orient(image, 0), image)
    assert tuple(image.transpose(-2, -1).flatten().tolist()) in turned


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_in_any_orientation_and_shift_has_distance_0_to_itself(channels: int) -> None:
    training = blobs(5, channels=channels)
    distance = PixelDistance(training)
    for orientation in range(ORIENTATIONS):
        for dy, dx in ((0, 0), (SHIFT, -1), (-SHIFT, SHIFT)):
            result = nearest(distance, orient(rolled(training, dy, dx), orientation))
            assert result.indices[:, 0].tolist() == list(range(5))
            assert result.distances.max() < 0.05  # the rolled edge reaches in by the smoothing
    assert nearest(distance, training).distances.max() < 1e-2
    assert nearest(distance, training).places.sum() == 0


def test_beyond_the_shifts_that_are_tried_an_image_is_far_from_itself() -> None:
    training = blobs(5)
    distance = PixelDistance(training)
    near, far = (nearest(distance, rolled(training, by, 0)).distances.max() for by in (SHIFT, SHIFT + 4))
    assert far > 5 * near


def test_the_pixel_distance_is_the_least_root_mean_square_over_the_contrast() -> None:
    training, image = blobs(1), blobs(1, seed=1) * 0.7 + 0.2
    contrast = float(smoothed(training).std(correction=0))
    values = []
    for orientation, shift, blur in product(range(ORIENTATIONS), SHIFTS, BLURS):
        ours = orient(smoothed(shifted(image, *shift)), orientation)[..., 3:-3:2, 3:-3:2]
        theirs = smoothed(training, (SIGMA**2 + blur**2) ** 0.5)[..., 3:-3:2, 3:-3:2]
        offset = max(float((ours.mean() - theirs.mean()).abs()) - OFFSET * contrast, 0)
        ours, theirs = ours - ours.mean(), theirs - theirs.mean()
        for gain in np.linspace(1 / GAIN, GAIN, 101):
            values.append((float(((gain * ours - theirs) ** 2).mean()) + offset**2) ** 0.5 / contrast)
    assert float(PixelDistance(training)(image)[0]) == pytest.approx(min(values), rel=1e-3)


def test_a_faint_pair_is_as_far_apart_as_the_same_pair_in_strong() -> None:
    training, images = blobs(3), blobs(3, seed=1)
    values = PixelDistance(training)(images)[0]
    assert torch.allclose(PixelDistance(training / 4)(images / 4)[0], values, atol=1e-3)
    assert PixelDistance(training * 1e-4).contrast.tolist() == pytest.approx([LEAST_CONTRAST] * 3)


def test_blur_contrast_and_noise_keep_an_image_near_and_other_content_does_not() -> None:
    training = blobs(6) + 0.2 * blobs(6, seed=3).roll(7, -1) * (torch.arange(32) % 6 < 3)
    distance = PixelDistance(training)
    stranger = float(distance(blobs(6, seed=2))[0].amin())
    for altered in (smoothed(training, 1.0), smoothed(training, 1.5), training * 1.08, training + 0.02):
        assert float(distance(altered)[0].diagonal().max()) < 0.05 * stranger
    noise = 0.2 * torch.randn(training.shape, generator=torch.Generator().manual_seed(0)) * training.std()
    assert float(distance(training + noise)[0].diagonal().max()) < 0.2 * stranger


def test_the_pair_that_is_shown_is_the_pair_that_was_compared() -> None:
    training = blobs(4)
    image = orient(rolled(training[2:3], 1, -2), 5)
    result = nearest(PixelDistance(training), image)
    one, other = aligned(image[0], training[int(result.indices[0, 0])], int(result.places[0, 0]))
    assert one.shape == other.shape == (1, 28, 28)
    assert torch.equal(one, other)


def test_large_images_are_compared_by_means_over_areas_and_oblong_ones_are_refused() -> None:
    images = blobs(2, side=128)
    assert torch.allclose(reduced(images), F.avg_pool2d(images, 2), atol=1e-6)
    assert reduced(images[..., :32, :32]).shape[-1] == 32
    with pytest.raises(ValueError, match="64x32 px, expected square"):
        reduced(torch.zeros(1, 1, 32, 64))
    with pytest.raises(ValueError, match="8 px are too small"):
        PixelDistance(torch.zeros(1, 1, 8, 8))


def test_the_feature_distance_is_the_least_over_orientations() -> None:
    training = blobs(4)

    def corner(images: torch.Tensor) -> torch.Tensor:
        return images[..., :8, :8].flatten(1)

    distance = FeatureDistance(training, corner, name="corner")
    values, _ = distance(orient(training, 6))
    assert torch.allclose(values.diagonal(), torch.zeros(4), atol=1e-2)
    brute = min(float((corner(training[:1]) - corner(orient(training[1:2], k))).norm()) for k in range(8))
    assert float(distance(training)[0][0, 1]) == pytest.approx(brute, rel=1e-4)


def test_neighbours_are_10_to_20_mm_apart_in_one_series() -> None:
    def item(group: str | None, position: object, source: str = "a") -> dict[str, object]:
        return {"group": group, "position": position, "source_sha256": source}

    items = [item("p", 5.0), item("p", 0.0), item("p", 2.5), item("p", 10.0), item("p", 13.0), item("p", 60.0)]
    assert neighbours(items) == [(1, 3), (2, 4)]
    items += [item("p", 41.0, "b"), item("p", 61.0, "b"), item("q", 10.0), item(None, 0), item(None, 10)]
    items += [{"group": "p"}, item("q", [0, 64]), item("q", [0, 128])]
    assert neighbours(items) == [(1, 3), (2, 4), (6, 7)]
    dense = [item("p", float(k)) for k in range(30)]
    assert neighbours(dense) == [(k, k + int(APART_MM)) for k in range(20)]


def test_items_of_one_group_have_one_number_and_items_of_none_their_own() -> None:
    items = [{"group": "b"}, {"group": "a"}, {}, {"group": "b"}, {"group": None}]
    assert number_patients(items).tolist() == [0, 1, 2, 0, 3]


def series_of_pairs() -> torch.Tensor:
    """Images 2 k and 2 k + 1 differ, the more the larger k."""
    first, second = blobs(30, seed=1), blobs(30, seed=2)
    weights = torch.linspace(0.05, 0.5, 30)[:, None, None, None]
    return torch.stack([first, first.lerp(second, weights)], dim=1).flatten(0, 1)


@pytest.mark.parametrize("patients", [np.arange(60) // 2, np.zeros(60, dtype=int)])
def test_a_copy_is_nearer_than_the_5_percent_quantile_of_neighbours(patients: np.ndarray) -> None:
    training = series_of_pairs()
    pairs = [(k, k + 1) for k in range(0, 60, 2)]
    distance = PixelDistance(training)
    found = reference(distance, training, pairs, patients)
    values, _ = distance(training)
    both = [float(values[a, b]) for pair in pairs for a, b in (pair, pair[::-1])]
    assert found.threshold == pytest.approx(np.quantile(both, 0.05))
    assert "30 pairs of slices of one patient 10 to 20 mm apart" in found.meaning


def test_neighbours_that_are_strangers_do_not_widen_the_bar() -> None:
    training = blobs(60)
    pairs = [(k, k + 1) for k in range(0, 60, 2)]
    found = reference(PixelDistance(training), training, pairs, np.arange(60) // 2)
    assert "half the 5 % quantile" in found.meaning


def test_without_neighbours_a_copy_is_nearer_than_half_the_5_percent_quantile_of_other_groups() -> None:
    training = series_of_pairs()
    distance = PixelDistance(training)
    patients = np.arange(60) // 2
    found = reference(distance, training, [(0, 1)], patients)
    values, _ = distance(training)
    others = values.masked_fill(torch.from_numpy(patients[:, None] == patients), np.inf).amin(1)
    assert found.threshold == pytest.approx(np.quantile(others, 0.05) / 2)
    assert np.allclose(np.sort(found.distances), np.sort(others))
    alone = reference(distance, training, [], np.zeros(60, dtype=int))
    assert alone.threshold == pytest.approx(np.quantile(values.fill_diagonal_(np.inf).amin(1), 0.05) / 2)
    assert alone.threshold < found.threshold / 2
    assert alone.meaning.endswith("to the nearest one")
