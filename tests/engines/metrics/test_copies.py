import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clinbundles.engines.metrics.copies import (
    ORIENTATIONS,
    SHIFT,
    FeatureDistance,
    PixelDistance,
    aligned,
    nearest,
    neighbours,
    orient,
    plant,
    reduced,
    reference,
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


def test_the_pixel_distance_is_a_root_mean_square_over_the_contrast() -> None:
    training = blobs(3)
    # A constant offset is left by every smoothing, shift and orientation.
    values, _ = PixelDistance(training)(training + 0.1)
    spread = (0.1 / values.diagonal()).numpy()
    inner = training[..., 5:-5, 5:-5].flatten(1).std(1, correction=0).numpy()
    assert np.all(spread < inner)  # the smoothing takes some
    assert np.allclose(spread, inner, rtol=0.25)
    faint, _ = PixelDistance(training / 4)((training + 0.1) / 4)
    assert torch.allclose(faint, values, atol=1e-3)


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


def test_neighbours_follow_each_other_in_one_series_without_a_gap() -> None:
    def item(group: str | None, position: object, source: str = "a") -> dict[str, object]:
        return {"group": group, "position": position, "source_sha256": source}

    items = [item("p", 5.0), item("p", 0.0), item("p", 2.5), item("p", 10.0), item("p", 1.0, "b"), item("p", 3.5, "b")]
    items += [item("q", 2.5), item(None, 1), item(None, 2), {"group": "p"}, item("q", [0, 64]), item("q", [0, 128])]
    assert neighbours(items) == [(1, 2), (2, 0), (4, 5)]


def test_a_copy_is_nearer_than_the_5_percent_quantile_of_neighbours() -> None:
    first, second = blobs(30, seed=1), blobs(30, seed=2)
    weights = torch.linspace(0.05, 0.5, 30)[:, None, None, None]
    training = torch.stack([first, first.lerp(second, weights)], dim=1).flatten(0, 1)
    pairs = [(k, k + 1) for k in range(0, 60, 2)]
    distance = PixelDistance(training)
    found = reference(distance, training, pairs)
    values, _ = distance(training)
    both = [float(values[a, b]) for pair in pairs for a, b in (pair, pair[::-1])]
    assert found.threshold == pytest.approx(np.quantile(both, 0.05))
    assert "30 pairs of neighbouring slices" in found.meaning


def test_without_neighbours_a_copy_is_nearer_than_half_the_5_percent_quantile_of_the_nearest_others() -> None:
    training = blobs(70)
    distance = PixelDistance(training)
    found = reference(distance, training, [(0, 1)])
    values, _ = distance(training)
    others = values.fill_diagonal_(np.inf).amin(1)
    assert found.threshold == pytest.approx(np.quantile(others, 0.05) / 2)
    assert np.allclose(np.sort(found.distances), np.sort(others))
    assert "half the 5 % quantile" in found.meaning


def test_planted_copies_are_shifted_noised_and_turned_and_still_nearest_to_their_originals() -> None:
    training = blobs(40)
    copies, originals = plant(training, count=10)
    assert len(set(originals)) == len(copies) == 10
    for copy, original in zip(copies, training[originals], strict=True):
        assert all((copy - orient(original, k)).abs().mean() > 0.01 for k in range(8))
    distance = PixelDistance(training)
    result = nearest(distance, copies)
    assert result.indices[:, 0].tolist() == originals
    strangers = nearest(distance, blobs(40, seed=9)).distances
    assert result.distances.max() < strangers.min() / 2
    assert plant(training, count=10, noise=0.3)[1] == originals
    assert torch.equal(plant(training)[0], copies)
    assert not torch.equal(plant(training, seed=1)[0], copies)


def test_noise_leaves_what_is_clipped_and_a_blur_takes_detail() -> None:
    training = torch.full((3, 1, 32, 32), -1.0)
    training[..., 10:20, 10:24] = 0.5
    copies, _ = plant(training, count=3, noise=0.2)
    assert (copies == -1).sum() == (training == -1).sum()
    assert (copies == 0.5).sum() == 0
    blurred, _ = plant(training, count=3, noise=0.0, blurred=True)
    sharp, _ = plant(training, count=3, noise=0.0)
    assert blurred.diff(dim=-1).abs().max() < 0.5 * sharp.diff(dim=-1).abs().max()
