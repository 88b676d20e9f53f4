import pytest
import torch
from torch.nn import functional as F

from clinbundles.engines.metrics.copies import PixelDistance, nearest, orient
from clinbundles.engines.metrics.planted_copies import DEGRADATIONS, Degradation, degraded, plant, turned


def blobs(count: int, *, seed: int = 0, side: int = 32) -> torch.Tensor:
    """Smooth images that differ."""
    noise = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.interpolate(noise, (side, side), mode="bicubic").clamp(-1, 1)


def degrade(images: torch.Tensor, **options: float) -> torch.Tensor:
    kind = Degradation("", **{"noise": 0.0, **options})  # type: ignore[arg-type]
    return degraded(images, kind, torch.Generator().manual_seed(0))


def test_planted_copies_are_shifted_noised_and_turned_and_still_nearest_to_their_originals() -> None:
    training = blobs(40)
    copies, originals = plant(training, count=10)
    assert len(set(originals)) == len(copies) == 10
    for copy, original in zip(copies, training[originals], strict=True):
        assert all((copy - orient(original, k)).abs().mean() > 0.01 for k in range(8))
    result = nearest(PixelDistance(training), copies)
    assert result.indices[:, 0].tolist() == originals
    strangers = nearest(PixelDistance(training), blobs(40, seed=9)).distances
    assert result.distances.max() < strangers.min() / 2
    assert torch.equal(plant(training)[0], copies)
    assert not torch.equal(plant(training, seed=1)[0], copies)


@pytest.mark.parametrize("kind", DEGRADATIONS, ids=lambda kind: kind.words)
def test_every_kind_of_degradation_plants_the_same_images_and_alters_them(kind: Degradation) -> None:
    training = blobs(40)
    copies, originals = plant(training, kind)
    assert originals == plant(training)[1]
    assert copies.shape == (10, 1, 32, 32)
    assert float(copies.abs().max()) <= 1
    if kind is not DEGRADATIONS[0]:
        assert (copies - plant(training)[0]).abs().mean() > 1e-3


def test_noise_leaves_what_is_clipped_and_is_measured_by_the_image() -> None:
    image = torch.full((1, 1, 32, 32), -1.0)
    image[..., 10:20, 10:24] = 0.5
    noised = degrade(image, noise=0.2)
    assert torch.equal(noised == -1, image == -1)
    faint = blobs(1, side=256) * 0.1
    assert float((degrade(faint, noise=0.2) - faint).std() / faint.std()) == pytest.approx(0.2, rel=0.02)


def test_blurs_keep_the_mean_and_take_detail() -> None:
    image = torch.full((1, 1, 32, 32), -0.5)
    image[..., 10:20, 10:24] = 0.5
    for options in ({"blur_px": 1.0}, {"averaged": True}):
        blurred = degrade(image, **options)
        assert float(blurred.mean()) == pytest.approx(float(image.mean()), abs=1e-5)
        assert blurred.diff(dim=-1).abs().max() < 0.5 * image.diff(dim=-1).abs().max()


def test_contrast_is_about_the_mean_of_the_image() -> None:
    image = blobs(2) * 0.5
    altered = degrade(image, contrast=1.1)
    assert torch.allclose(altered.mean((1, 2, 3)), image.mean((1, 2, 3)), atol=1e-6)
    assert torch.allclose(altered.std((1, 2, 3)), 1.1 * image.std((1, 2, 3)), rtol=1e-4)


def test_a_quarter_turn_is_a_turn_by_90_degrees_and_a_zoom_of_2_shows_the_middle() -> None:
    image = blobs(1)
    assert torch.allclose(turned(image, 90.0, 1.0), orient(image, 1), atol=1e-5)
    middle = F.avg_pool2d(turned(image, 0.0, 2.0), 2)
    assert torch.allclose(middle, image[..., 8:24, 8:24], atol=0.1)
