import math

import pytest
import torch

from clinbundles.nets.datasetgan.color_maps import brightness, contrast, hue_rotation, luma_flip, recolor, saturation


@pytest.fixture
def images() -> torch.Tensor:
    return 2 * torch.rand(2, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 1


def test_brightness_adds_and_contrast_multiplies(images: torch.Tensor) -> None:
    values = torch.tensor([0.3, -0.2])
    entries = values[:, None, None, None].double()
    for batch in (images, images[:, :1]):
        assert torch.allclose(recolor(batch, brightness(values)), batch + entries)
        assert torch.allclose(recolor(batch, contrast(values)), batch * entries)


def test_a_luma_flip_negates_greys_and_keeps_the_distance_from_them(images: torch.Tensor) -> None:
    color = luma_flip(torch.ones(2))
    grey = images.mean(1, keepdim=True)
    assert torch.allclose(recolor(grey, color), -grey, atol=1e-6)
    assert torch.allclose(recolor(grey.expand(-1, 3, -1, -1), color), -grey.expand(-1, 3, -1, -1), atol=1e-6)
    assert torch.allclose(recolor(images, color), images - 2 * grey, atol=1e-6)


def test_a_hue_rotation_by_a_third_turn_hands_each_colour_to_the_next(images: torch.Tensor) -> None:
    turned = recolor(images, hue_rotation(torch.full((2,), 2 * math.pi / 3)))
    assert torch.allclose(turned, images.roll(1, dims=1), atol=1e-6)


def test_a_hue_rotation_keeps_luma_and_distance_from_it_and_turns_by_its_angle(images: torch.Tensor) -> None:
    turned = recolor(images, hue_rotation(torch.full((2,), 0.7)))
    grey = images.mean(1, keepdim=True)
    assert torch.allclose(turned.mean(1, keepdim=True), grey, atol=1e-6)
    before, after = images - grey, turned - grey
    cosine = (before * after).sum(1) / (before.norm(dim=1) * after.norm(dim=1))
    assert torch.allclose(cosine, torch.full_like(cosine, math.cos(0.7)), atol=1e-5)


def test_saturation_multiplies_the_distance_from_grey(images: torch.Tensor) -> None:
    grey = images.mean(1, keepdim=True)
    expected = grey + torch.tensor([0.0, 1.7])[:, None, None, None] * (images - grey)
    assert torch.allclose(recolor(images, saturation(torch.tensor([0.0, 1.7]))), expected, atol=1e-6)


def test_neutral_values_give_the_identity_to_the_last_bit() -> None:
    zero, one = torch.zeros(3), torch.ones(3)
    for color in (brightness(zero), contrast(one), luma_flip(zero), hue_rotation(zero), saturation(one)):
        assert torch.equal(color, torch.eye(4).expand(3, 4, 4))
    images = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(recolor(images, torch.eye(4).expand(3, 4, 4)), images)
    assert torch.equal(recolor(images[:, :1], torch.eye(4).expand(3, 4, 4)), images[:, :1])
