"""Affine maps of square images with little aliasing: twice as fine by a wavelet, bilinear there, and back.

A map is a matrix (N, 3, 3) from places of the output to places of the input. Places are (x, y, 1) in pixels from the
image's centre, x to the right and y down. Beyond its border an image goes on as its reflection, without end.
"""

from __future__ import annotations

import functools
import math

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
_BEFORE = 5
# Fine sample k lies over pixel (k - _DELAY) / 2: the filter's centre of mass, where polynomials come out unchanged.
_DELAY = sum(k * tap for k, tap in enumerate(SYM6)) / sum(SYM6) - _BEFORE


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


@functools.lru_cache(maxsize=8)
def _resampling(side: int, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the matrices that make one axis finer, (4 side - 3, side), and coarser, (side, 2 side + 10).

    An axis with its reflection repeats after 2 side - 2 pixels; the finer axis holds one period, and its first sample
    again at its end. The coarser axis starts from 5 samples more on each side than the image has.
    """
    period = 2 * side - 2
    finer = torch.zeros(2 * period + 1, side, dtype=torch.float64)
    coarser = torch.zeros(side, 2 * side + 10, dtype=torch.float64)
    for tap, value in enumerate(SYM6):
        sample = torch.arange((tap + _BEFORE) % 2, 2 * period + 1, 2)
        place = torch.div(sample + _BEFORE - tap, 2, rounding_mode="floor") % period
        pixel = torch.minimum(place, period - place)
        finer.index_put_((sample, pixel), torch.tensor(value * math.sqrt(2), dtype=torch.float64), accumulate=True)
        row = torch.arange(side)
        coarser[row, 2 * row + tap] = value / math.sqrt(2)
    return finer.to(device, dtype), coarser.to(device, dtype)


def _source_axis(places: torch.Tensor, side: int) -> torch.Tensor:
    """Turn places in pixels from the centre into places of one period of the finer axis, as grid_sample counts."""
    samples = 2 * places + (side - 1 + _DELAY)
    period = 4 * side - 4
    samples = samples - period * torch.floor(samples / period)
    return samples * (2 / (period + 1)) + (1 / (period + 1) - 1)


def warp(images: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """Map images by matrices from output to input places.

    A move by whole pixels comes out exact, to rounding. The reference pads by at most one image on each side and gives
    zeros beyond; here the reflections go on, so that no image has empty corners and all batches cost the same.

    Args:
        images: (N, C, S, S), of float32 or float64, S at least 2.
        inverse: (N, 3, 3), without a gradient.

    Returns:
        (N, C, S, S).

    Source: Karras et al., Training generative adversarial networks with limited data, 2020, appendix B.
    """
    side = images.shape[-1]
    with torch.inference_mode(False):
        finer, coarser = _resampling(side, images.device, images.dtype)
    axis = torch.arange(2 * side + 10, device=images.device, dtype=images.dtype)
    axis = (axis - (_BEFORE + _DELAY)) / 2 - (side - 1) / 2
    entries = inverse.to(images.dtype)[..., None, None]
    x, y = (
        _source_axis(entries[:, k, 0] * axis + (entries[:, k, 1] * axis[:, None] + entries[:, k, 2]), side)
        for k in range(2)
    )
    fine = torch.matmul(finer, torch.matmul(images, finer.T))
    sampled = grid_sample(fine, torch.stack([x, y], dim=-1))
    return torch.matmul(coarser, torch.matmul(sampled, coarser.T))
