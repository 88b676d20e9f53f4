"""Low-pass filtering and resampling by two with a finite impulse response (FIR) filter."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

# Binomial taps of StyleGAN2, here of sum 1.
TAPS = (0.125, 0.375, 0.375, 0.125)


def low_pass(images: torch.Tensor, *, padding: int, gain: float = 1.0) -> torch.Tensor:
    """Filter by the taps along rows and columns, with zeros around the image.

    Args:
        images: (N, C, H, W).
        padding: zeros on each side in px, at most 3.
        gain: factor on the result.

    Returns:
        (N, C, H + 2 * padding - 3, W + 2 * padding - 3).
    """
    return _LowPass.apply(images, padding, gain)


def double(images: torch.Tensor) -> torch.Tensor:
    """Double the size: zeros between the pixels, then the low-pass of gain 4.

    Args:
        images: (N, C, H, W).

    Returns:
        (N, C, 2 * H, 2 * W).
    """
    return _Double.apply(images, 4.0)


def halve(images: torch.Tensor) -> torch.Tensor:
    """Halve the size: the low-pass, then every second pixel.

    Args:
        images: (N, C, H, W), H and W even.

    Returns:
        (N, C, H / 2, W / 2).
    """
    return _Halve.apply(images, 1.0)


# All three are linear, and the taps the same from both ends, so that each one's gradient is one of the three again:
# it costs a plain convolution, needs no image to be kept, and can be differentiated without end.


class _LowPass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, padding: int, gain: float) -> torch.Tensor:
        ctx.padding, ctx.gain = padding, gain
        return F.conv2d(images, _kernels(images, gain), padding=padding, groups=images.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _LowPass.apply(grad, 3 - ctx.padding, ctx.gain), None, None


class _Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, gain: float) -> torch.Tensor:
        ctx.gain = gain
        kernels = _kernels(images, gain)
        return F.conv_transpose2d(images, kernels, stride=2, padding=1, groups=images.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _Halve.apply(grad, ctx.gain), None


class _Halve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, gain: float) -> torch.Tensor:
        ctx.gain = gain
        return F.conv2d(images, _kernels(images, gain), stride=2, padding=1, groups=images.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _Double.apply(grad, ctx.gain), None


def _kernels(images: torch.Tensor, gain: float) -> torch.Tensor:
    """Return the two-dimensional kernel for each channel, (C, 1, 4, 4)."""
    taps = torch.tensor(TAPS, dtype=images.dtype, device=images.device)
    return (taps[:, None] * taps * gain).expand(images.shape[1], 1, 4, 4)
