"""Affine maps of square images with little aliasing: twice as fine by a wavelet, bilinear there, and back.

A map is a matrix (N, 3, 3) from places of the output to places of the input. Places are (x, y, 1) in pixels from the
image's centre, x to the right and y down. Beyond its border an image goes on as its reflection, without end.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch

from .grid_sample import grid_sample

# Low-pass filter of the symlet with six vanishing moments (sym6): orthonormal to its own shifts by an even number.
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
# Taps before the one that lies over the pixel, as in the reference; the filter's centre of mass is 0.1 taps further.
_BEFORE = 5
# Pixels that are made finer at once.
_BLOCK = 16


def _affine(*entries: torch.Tensor) -> torch.Tensor:
    """Stack the upper two rows, six tensors (N,), to matrices (N, 3, 3)."""
    zero, one = torch.zeros_like(entries[0]), torch.ones_like(entries[0])
    return torch.stack([*entries, zero, zero, one], dim=-1).unflatten(-1, (3, 3))


def scaling(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return matrices (N, 3, 3) that multiply places by factors (N,) along x and y."""
    zero = torch.zeros_like(x)
    return _affine(x, zero, zero, zero, y, zero)


def rotation(angle: torch.Tensor) -> torch.Tensor:
    """Return matrices (N, 3, 3) that turn places by angles (N,) in radians, from x towards y."""
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _affine(cosine, -sine, zero, sine, cosine, zero)


def translation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return matrices (N, 3, 3) that move places by (N,) pixels along x and y."""
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _affine(one, zero, x, zero, one, y)


def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Multiply small matrices (N, K, K) in full precision, which a GPU's matrix units may not keep."""
    return (left[..., :, :, None] * right[..., None, :, :]).sum(-2)


class _Resampling(NamedTuple):
    """Linear maps of one axis of S pixels to a finer axis and from one.

    The first axis holds one period of an image and its reflection, 4 S - 4 samples, and at least one more; the second
    5 samples more on each side than the image has.
    """

    finer: torch.Tensor  # (fine, S)
    # The same by blocks, which costs rows of an image less: each 2 _BLOCK rows of `finer` after the other
    # have this band (2 _BLOCK, K), over these pixels (blocks * K,).
    band: torch.Tensor
    pixels: torch.Tensor
    coarser: torch.Tensor  # (S, 2 S + 10)


@functools.lru_cache(maxsize=8)
def _resampling(side: int, device: torch.device, dtype: torch.dtype) -> _Resampling:
    """Return the maps for images of ``side`` pixels."""
    band = torch.zeros(2 * _BLOCK, _BLOCK + 6, dtype=torch.float64)
    coarser = torch.zeros(side, 2 * side + 10, dtype=torch.float64)
    row = torch.arange(side)
    for tap, value in enumerate(SYM6):
        sample = torch.arange((tap + 1) % 2, 2 * _BLOCK, 2)
        band[sample, (sample + _BEFORE - tap) // 2 + 3] = value * math.sqrt(2)
        coarser[row, 2 * row + tap] = value / math.sqrt(2)
    period = 2 * side - 2
    blocks = math.ceil((2 * period + 1) / (2 * _BLOCK))
    places = _BLOCK * torch.arange(blocks)[:, None] + torch.arange(_BLOCK + 6) - 3
    pixels = torch.minimum(places % period, -places % period)
    finer = (band @ torch.eye(side, dtype=torch.float64)[pixels]).flatten(0, 1)
    return _Resampling(
        finer.to(device, dtype), band.to(device, dtype), pixels.flatten().to(device), coarser.to(device, dtype)
    )


def _source_grid(inverse: torch.Tensor, side: int, fine: int) -> torch.Tensor:
    """Return the grid (N, 2 side + 10, 2 side + 10, 2) of places on finer axes of ``fine`` samples."""
    period = 4 * side - 4
    axis = torch.arange(2 * side + 10, device=inverse.device, dtype=inverse.dtype)
    axis = (axis - _BEFORE - (side - 1)) / 2
    across, down, shift = (inverse[:, None, None, :2, k] * (2 / period) for k in range(3))
    shift = shift + (side - 1) / period
    grid = across * axis[:, None] + (down * axis[:, None, None] + shift)
    # Fold by whole periods; then count from edge to edge as -1 to 1.
    grid.sub_(grid.floor())
    return grid.mul_(2 * period / fine).add_(1 / fine - 1)


def warp(images: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """Map images by matrices from output to input places.

    A move by whole pixels comes out exact, to rounding. The values are the reference's as far as that reflects: it pads
    by at most one image on each side and gives zeros beyond, where the reflections go on here, so that no image has
    empty corners and all batches cost the same.

    Args:
        images: (N, C, S, S), of float32 or float64, S at least 2.
        inverse: (N, 3, 3), without a gradient.

    Returns:
        (N, C, S, S).

    Source: Karras et al., Training generative adversarial networks with limited data, 2020, appendix B.
    """
    side = images.shape[-1]
    with torch.inference_mode(False):
        finer, band, pixels, coarser = _resampling(side, images.device, images.dtype)
    blocks = torch.matmul(images, finer.T).index_select(-2, pixels).unflatten(-2, (-1, band.shape[1]))
    fine = torch.matmul(band, blocks).flatten(-3, -2)
    sampled = grid_sample(fine, _source_grid(inverse.to(images.dtype), side, len(finer)))
    return torch.matmul(coarser, torch.matmul(sampled, coarser.T))
