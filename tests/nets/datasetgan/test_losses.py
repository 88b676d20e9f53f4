"""Tests of the losses: against their formulas, and the penalties where the gradient is known."""

import math

import pytest
import torch

from clinbundles.nets.datasetgan.losses import PathLengthPenalty, discriminator_loss, generator_loss, gradient_penalty


def test_losses_are_cross_entropies_of_real_and_generated() -> None:
    real, fake = torch.tensor([[0.5], [2.0]]), torch.tensor([[-1.0], [0.3]])
    expected = -(torch.sigmoid(fake).log().mean())
    assert generator_loss(fake).item() == pytest.approx(expected.item(), rel=1e-5)
    expected = -(torch.sigmoid(real).log().mean() + (1 - torch.sigmoid(fake)).log().mean())
    assert discriminator_loss(real, fake).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_gradient_penalty_of_a_linear_score_is_half_its_squared_norm() -> None:
    slope = torch.randn(1, 4, 4, requires_grad=True)
    images = torch.randn(3, 1, 4, 4, requires_grad=True)
    penalty = gradient_penalty(images, (images * slope).sum(dim=(1, 2, 3))[:, None])
    assert penalty.item() == pytest.approx(slope.square().sum().item() / 2, rel=1e-5)
    penalty.backward()
    assert torch.allclose(slope.grad, slope.detach())


def test_the_path_length_of_a_linear_generator_is_its_slope_and_the_mean_follows() -> None:
    torch.manual_seed(0)
    penalty = PathLengthPenalty(decay=0.5)
    ws = torch.randn(2000, 1, 1, requires_grad=True)
    images = ws[:, :, :, None] * torch.full((1, 1, 4, 4), 3.0)
    # A step in w of 1 changes each of 16 pixels by 3: |J y| with y normal / 4 has the mean 3 * sqrt(2 / pi).
    length = 3 * math.sqrt(2 / math.pi)
    value = penalty(images, ws)
    assert penalty.mean.item() == pytest.approx(length / 2, rel=0.1)
    expected = 9 * (1 - 2 / math.pi) + (length / 2) ** 2
    assert value.item() == pytest.approx(expected, rel=0.1)
