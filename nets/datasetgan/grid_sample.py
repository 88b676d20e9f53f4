"""Bilinear sampling of images that can be differentiated any number of times with respect to the images."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

# Codes of aten for bilinear interpolation, zeros outside, and corners of the grid at corners of pixels.
_BILINEAR, _ZEROS, _ALIGN_CORNERS = 0, 0, False


class _GridSample(torch.autograd.Function):
    """Sample images (N, C, H, W) at a grid (N, h, w, 2); linear in the images, whose values need not be kept."""

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        ctx.shape = images.shape
        ctx.save_for_backward(grid)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=_ALIGN_CORNERS)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _GridSpread.apply(gradients[0], grid, ctx.shape), None


class _GridSpread(torch.autograd.Function):
    """Spread values (N, C, h, w) to the pixels that they were sampled from: the transpose of sampling."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, grid: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        ctx.save_for_backward(grid)
        # Only the shape of the images counts where no gradient of the grid is asked for.
        images = values.new_zeros(()).expand(shape)
        return torch.ops.aten.grid_sampler_2d_backward(
            values, images, grid, _BILINEAR, _ZEROS, _ALIGN_CORNERS, (True, False)
        )[0]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _GridSample.apply(gradients[0], grid), None, None


def grid_sample(images: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Sample images bilinearly, with zeros outside and ``align_corners=False``.

    PyTorch's own function gives the same values, but not all of its versions and devices give second derivatives,
    which the gradient penalty of a discriminator behind an augmentation needs. On a GPU the gradient adds in no fixed
    order, as PyTorch's does, so that its last digits vary between runs.

    Args:
        images: (N, C, H, W).
        grid: (N, h, w, 2), places as (x, y) of [-1, 1] from edge to edge, without a gradient.

    Returns:
        (N, C, h, w).

    Raises:
        ValueError: if the grid asks for a gradient.
    """
    if grid.requires_grad:
        raise ValueError("grid_sample gives gradients of the images only, but the grid asks for one.")
    return _GridSample.apply(images, grid)
