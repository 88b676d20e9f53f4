"""Low-pass filtering and resampling by two with a finite impulse response (FIR) filter."""

from __future__ import annotations

import torch
from torch.nn import functional as F

# Binomial taps of StyleGAN2, here of sum 1.
TAPS = (0.125, 0.375, 0.375, 0.125)


def low_pass(images: torch.Tensor, *, padding: int, gain: float = 1.0) -> torch.Tensor:
    """Filter by the taps along rows and columns, with zeros around the image.

    Two passes of one axis each are the two-dimensional filter, at half its cost.

    Args:
        images: (N, C, H, W).
        padding: zeros on each side in px.
        gain: factor on the result.

    Returns:
        (N, C, H + 2 * padding - 3, W + 2 * padding - 3).
    """
    channels = images.shape[1]
    taps = torch.tensor(TAPS, dtype=images.dtype, device=images.device) * gain**0.5
    rows = F.conv2d(images, taps.view(1, 1, 4, 1).expand(channels, 1, 4, 1), padding=(padding, 0), groups=channels)
    return F.conv2d(rows, taps.view(1, 1, 1, 4).expand(channels, 1, 1, 4), padding=(0, padding), groups=channels)


def double(images: torch.Tensor) -> torch.Tensor:
    """Double the size: zeros between the pixels, then the low-pass of gain 4.

    Args:
        images: (N, C, H, W).

    Returns:
        (N, C, 2 * H, 2 * W).
    """
    channels = images.shape[1]
    kernel = _kernel(images) * 4
    return F.conv_transpose2d(images, kernel.expand(channels, 1, 4, 4), stride=2, padding=1, groups=channels)


def halve(images: torch.Tensor) -> torch.Tensor:
    """Halve the size: the low-pass, then every second pixel.

    Args:
        images: (N, C, H, W), H and W even.

    Returns:
        (N, C, H / 2, W / 2).
    """
    channels = images.shape[1]
    return F.conv2d(images, _kernel(images).expand(channels, 1, 4, 4), stride=2, padding=1, groups=channels)


def _kernel(like: torch.Tensor) -> torch.Tensor:
    taps = torch.tensor(TAPS, dtype=like.dtype, device=like.device)
    return taps[:, None] * taps
