import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from clinbundles.nets.datasetgan.affine_warp import SYM6, product, rotation, scaling, translation, warp

SIDE = 32


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def smooth() -> torch.Tensor:
    """An image (1, 1, 32, 32) without high frequencies and without any symmetry, of about [-1, 1]."""
    noise = np.random.default_rng(0).standard_normal((SIDE, SIDE))
    image = ndimage.gaussian_filter(noise, 3, mode="mirror")
    return torch.from_numpy(image / np.abs(image).max())[None, None]


def scipy_warp(image: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """The same by scipy, whose places are (row, column) from the first pixel's centre."""
    matrix = inverse[0].numpy()[[1, 0, 2]][:, [1, 0, 2]]
    centre = np.full(2, (SIDE - 1) / 2)
    offset = matrix[:2, 2] + centre - matrix[:2, :2] @ centre
    return torch.from_numpy(
        ndimage.affine_transform(image[0, 0].numpy(), matrix[:2, :2], offset, order=5, mode="mirror")
    )


def padded_warp(image: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """The definition step by step: pad by reflection, put zeros between pixels, filter, sample, filter, drop."""
    taps = torch.tensor(SYM6, dtype=torch.float64)
    pad = SIDE - 1
    filters = 2 * taps.outer(taps)[None, None] / taps.sum() ** 2 * 2
    fine = F.conv_transpose2d(F.pad(image, (pad,) * 4, mode="reflect"), filters, stride=2)
    # Sample k of conv_transpose2d has the tap k - 2 i of pixel i, and tap 5 lies over the pixel.
    delay = 5
    places = (torch.arange(2 * SIDE + 10, dtype=torch.float64) - delay) / 2 - (SIDE - 1) / 2
    y, x = torch.meshgrid(places, places, indexing="ij")
    x, y = (inverse[0, k, 0] * x + inverse[0, k, 1] * y + inverse[0, k, 2] for k in range(2))
    samples = [2 * (place + (SIDE - 1) / 2 + pad) + delay for place in (x, y)]
    grid = torch.stack([(2 * sample + 1) / fine.shape[-1] - 1 for sample in samples], dim=-1)[None]
    sampled = F.grid_sample(fine, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return F.conv2d(sampled, filters / 4, stride=2)


def test_the_wavelet_is_orthonormal_to_its_even_shifts_and_has_six_vanishing_moments() -> None:
    taps = np.array(SYM6)
    assert taps.sum() == pytest.approx(math.sqrt(2), abs=1e-10)
    for shift in range(6):
        assert taps[2 * shift :] @ taps[: 12 - 2 * shift] == pytest.approx(float(shift == 0), abs=1e-10)
    signs = (-1.0) ** np.arange(12)
    for power in range(6):
        scale = (np.arange(12.0) ** power * abs(taps)).sum()
        assert abs((signs * np.arange(12.0) ** power * taps).sum()) < 1e-10 * scale


def test_the_identity_leaves_images_as_they_are_up_to_rounding() -> None:
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(warp(images, torch.eye(3).expand(3, 3, 3)), images, atol=1e-4)
    exact = images.double()
    assert torch.allclose(warp(exact, torch.eye(3).expand(3, 3, 3)), exact, atol=1e-10)


@pytest.mark.parametrize("shift", [(3, 0), (0, -4), (-5, 7), (40, -70)])
def test_a_move_by_whole_pixels_copies_pixels_of_the_reflected_image(shift: tuple[int, int]) -> None:
    image = torch.randn(1, 1, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moved = warp(image, translation(numbers(-shift[0]), numbers(-shift[1])))
    padded = np.pad(image[0, 0].numpy(), 80, mode="reflect")
    expected = padded[80 - shift[1] :, 80 - shift[0] :][:SIDE, :SIDE]
    assert np.allclose(moved[0, 0].numpy(), expected, atol=1e-9)


def test_matrices_move_places_as_they_say() -> None:
    place = numbers(2, 1, 1)
    assert torch.allclose(rotation(numbers(math.pi / 2))[0] @ place, numbers(-1, 2, 1))
    assert torch.equal(scaling(numbers(3), numbers(0.5))[0] @ place, numbers(6, 0.5, 1))
    assert torch.equal(translation(numbers(3), numbers(-4))[0] @ place, numbers(5, -3, 1))
    first, second = rotation(numbers(0.3)), translation(numbers(1), numbers(2))
    assert torch.allclose(product(second, first), second @ first)


TURNS = {
    "rotation": rotation(numbers(0.4)),
    "isotropic scale": scaling(numbers(0.8), numbers(0.8)),
    "anisotropic scale": scaling(numbers(0.8), numbers(1.25)),
    "fractional move": translation(numbers(1.3), numbers(-2.6)),
    "all": product(
        product(translation(numbers(3.0), numbers(-2.0)), rotation(numbers(-0.7))), scaling(numbers(0.9), numbers(1.2))
    ),
}


@pytest.mark.parametrize("name", TURNS)
def test_maps_are_those_of_scipy_about_the_same_centre_and_in_the_same_direction(
    name: str, smooth: torch.Tensor
) -> None:
    inverse = TURNS[name]
    ours = warp(smooth, inverse)[0, 0]
    error = (ours - scipy_warp(smooth, inverse)).square().mean().sqrt()
    assert error < 0.01
    # The same tolerance is missed by the opposite map and by a centre half a pixel off.
    assert (ours - scipy_warp(smooth, torch.linalg.inv(inverse))).square().mean().sqrt() > 10 * error
    half = translation(numbers(0.5), numbers(0.5))
    if "move" not in name:
        assert (ours - scipy_warp(smooth, product(half, inverse))).square().mean().sqrt() > 3 * error


@pytest.mark.parametrize("name", TURNS)
def test_a_map_is_padding_filtering_sampling_and_filtering(name: str) -> None:
    image = torch.randn(1, 1, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(warp(image, TURNS[name]), padded_warp(image, TURNS[name]), atol=1e-9)


def test_images_are_mapped_each_by_its_own_matrix_and_each_channel_alike() -> None:
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    inverse = torch.cat([rotation(torch.tensor([0.3])), scaling(torch.tensor([1.2]), torch.tensor([0.9]))])
    together = warp(images, inverse)
    for number in range(2):
        for channel in range(3):
            alone = warp(images[number : number + 1, channel : channel + 1], inverse[number : number + 1])
            assert torch.allclose(alone[0, 0], together[number, channel], atol=1e-5)


def test_an_image_seen_first_without_gradients_can_have_them_later() -> None:
    images, inverse = torch.randn(1, 1, 12, 12, dtype=torch.float64), rotation(numbers(0.3))
    with torch.inference_mode():
        warp(images, inverse)
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    warp(weight * images, inverse).sum().backward()
    assert weight.grad is not None


def test_far_away_the_reflections_of_a_constant_image_have_no_empty_corner() -> None:
    image = torch.ones(1, 1, 16, 16)
    inverse = scaling(torch.tensor([9.0]), torch.tensor([9.0]))
    assert torch.allclose(warp(image, inverse), image, atol=1e-5)
