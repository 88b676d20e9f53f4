"""Discriminator of StyleGAN2: residual blocks, and the deviation within a batch as a feature."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn

from .generator import channels_at, sizes_up_to
from .layers import EqualizedConv2d, EqualizedLinear


class ResidualBlock(nn.Module):
    """Two convolutions that halve the size, beside a skip that does.

    Args:
        in_channels: of the input.
        out_channels: of the result.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = math.sqrt(0.5)
        self.skip = EqualizedConv2d(in_channels, out_channels, 1, down=True, bias=False, activate=False, gain=half)
        self.conv0 = EqualizedConv2d(in_channels, in_channels, 3)
        self.conv1 = EqualizedConv2d(in_channels, out_channels, 3, down=True, gain=half)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / 2, W / 2)."""
        return self.skip(x) + self.conv1(self.conv0(x))


def minibatch_deviation(x: torch.Tensor, group_size: int | None = 4) -> torch.Tensor:
    """Append a channel that says how much the images of a group differ (Karras et al. 2018, progressive growing).

    Args:
        x: (N, C, H, W).
        group_size: images that are compared with each other; None for the whole batch. N must be a multiple of it, or
            less than it.

    Returns:
        (N, C + 1, H, W).
    """
    n, channels, height, width = x.shape
    if group_size is not None and group_size < 1:
        raise ValueError(f"group_size is {group_size}, expected 1 or more, or None for the whole batch.")
    size = n if group_size is None else min(group_size, n)
    if n % size:
        raise ValueError(f"a batch of {n} images does not divide into groups of {size}.")
    groups = x.float().reshape(size, n // size, channels, height, width)
    deviation = (groups.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    plane = deviation.to(x.dtype).view(1, -1, 1, 1, 1).expand(size, -1, 1, height, width)
    return torch.cat([x, plane.reshape(n, 1, height, width)], dim=1)


class Discriminator(nn.Module):
    """Score images: above 0 where they look real (Karras et al. 2020).

    Args:
        image_size: side of the images in px, a power of two.
        image_channels: of the images.
        channel_base: as the generator's.
        channel_max: as the generator's.
        group_size: of :func:`minibatch_deviation`.

    Raises:
        ValueError: ``image_size`` is no power of two.
    """

    def __init__(
        self,
        image_size: int = 64,
        image_channels: int = 1,
        channel_base: int = 1024,
        channel_max: int = 64,
        group_size: int | None = 4,
    ) -> None:
        super().__init__()
        widths = [channels_at(size, channel_base, channel_max) for size in reversed(sizes_up_to(image_size))]
        self.group_size = group_size
        self.from_image = EqualizedConv2d(image_channels, widths[0], 1)
        self.blocks = nn.Sequential(*(ResidualBlock(a, b) for a, b in pairwise(widths)))
        self.conv = EqualizedConv2d(widths[-1] + 1, widths[-1], 3)
        self.linear = EqualizedLinear(widths[-1] * 16, widths[-1], activate=True)
        self.score = EqualizedLinear(widths[-1], 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Score images (N, image_channels, H, W) in [-1, 1] as (N, 1)."""
        x = self.blocks(self.from_image(images.contiguous(memory_format=torch.channels_last)))
        x = self.conv(minibatch_deviation(x, self.group_size))
        return self.score(self.linear(x.flatten(1)))
