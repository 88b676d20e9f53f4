"""Tests of the discriminator: the deviation within a batch, its shapes, and R1 through it."""

import pytest
import torch

from clinbundles.nets.datasetgan.discriminator import Discriminator, ResidualBlock, minibatch_deviation


def test_the_deviation_is_that_of_the_members_of_each_group() -> None:
    x = torch.randn(8, 3, 4, 4)
    result = minibatch_deviation(x, 4)
    assert result.shape == (8, 4, 4, 4)
    # The images of a group lie a quarter of the batch apart.
    expected = x[[0, 2, 4, 6]].var(dim=0, unbiased=False).add(1e-8).sqrt().mean()
    assert torch.allclose(result[[0, 2, 4, 6], 3], expected.expand(4, 4, 4))
    assert not torch.allclose(result[0, 3], result[1, 3])


def test_equal_images_have_no_deviation() -> None:
    x = torch.randn(1, 3, 4, 4).expand(4, -1, -1, -1)
    assert minibatch_deviation(x)[:, 3].abs().max() < 1e-3


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 6 images does not divide into groups of 4"):
        minibatch_deviation(torch.randn(6, 3, 4, 4), 4)
    with pytest.raises(ValueError, match="group_size is 0, expected 1 or more"):
        minibatch_deviation(torch.randn(6, 3, 4, 4), 0)
    assert minibatch_deviation(torch.randn(3, 3, 4, 4), 4).shape == (3, 4, 4, 4)


def test_a_block_halves_the_size_and_keeps_the_variance() -> None:
    torch.manual_seed(0)
    y = ResidualBlock(32, 32)(torch.randn(8, 32, 16, 16))
    assert y.shape == (8, 32, 8, 8)
    assert 0.1 < y[..., 2:-2, 2:-2].var() < 1.5


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (32, 3)])
def test_it_scores_each_image(size: int, channels: int) -> None:
    network = Discriminator(size, channels, channel_base=128, channel_max=16)
    assert network(torch.randn(4, channels, size, size)).shape == (4, 1)


def test_the_papers_widths_at_256_px_have_24_million_weights() -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in Discriminator(256, 3, 16384, 512).parameters())
    assert count == 24_001_089
