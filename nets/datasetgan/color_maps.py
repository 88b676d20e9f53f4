"""Affine maps of colours: matrices (N, 4, 4) from (red, green, blue, 1) to the new colour.

A neutral value gives the identity, to the last bit. Luma is along the axis of greys, (1, 1, 1).
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch


class _Matrices(NamedTuple):
    """Matrices (4, 4) that the maps are made of."""

    identity: torch.Tensor
    shift: torch.Tensor  # 1 to each colour
    rgb: torch.Tensor  # all colours as they are
    grey: torch.Tensor  # the projection on greys
    turn: torch.Tensor  # the cross product with the axis of greys


@functools.lru_cache(maxsize=8)
def _matrices(device: torch.device) -> _Matrices:
    """Return the matrices on a device: to send them anew would wait for it."""
    identity = torch.eye(4)
    rgb = torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0]))
    ones = rgb.sum(0)
    next_color = torch.zeros(4, 4)
    next_color[[1, 2, 0], [0, 1, 2]] = 1 / math.sqrt(3)
    matrices = (identity, ones.outer(identity[3]), rgb, ones.outer(ones) / 3, next_color - next_color.T)
    return _Matrices(*(matrix.to(device) for matrix in matrices))


def _entries(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None]


def brightness(shift: torch.Tensor) -> torch.Tensor:
    """Add (N,) to all colours."""
    matrices = _matrices(shift.device)
    return matrices.identity + _entries(shift) * matrices.shift


def contrast(scale: torch.Tensor) -> torch.Tensor:
    """Multiply all colours by (N,)."""
    matrices = _matrices(scale.device)
    return matrices.identity + _entries(scale - 1) * matrices.rgb


def luma_flip(flip: torch.Tensor) -> torch.Tensor:
    """Negate the luma and keep the colour where (N,) is 1 and not 0."""
    matrices = _matrices(flip.device)
    return matrices.identity - 2 * _entries(flip) * matrices.grey


def hue_rotation(angle: torch.Tensor) -> torch.Tensor:
    """Turn colours around the axis of greys by angles (N,) in radians, red towards green."""
    matrices = _matrices(angle.device)
    away = _entries(angle.cos() - 1) * (matrices.rgb - matrices.grey)
    return matrices.identity + away + _entries(angle.sin()) * matrices.turn


def saturation(scale: torch.Tensor) -> torch.Tensor:
    """Multiply the distance from the grey of the same luma by (N,)."""
    matrices = _matrices(scale.device)
    return matrices.identity + _entries(scale - 1) * (matrices.rgb - matrices.grey)


def recolor(images: torch.Tensor, color: torch.Tensor) -> torch.Tensor:
    """Apply maps (N, 4, 4) to images (N, 1 or 3, H, W); a single channel is taken as a grey and gives one."""
    color = color.to(images.dtype)
    if images.shape[1] == 1:
        scale, shift = color[:, :3, :3].sum((1, 2)) / 3, color[:, :3, 3].mean(1)
        return torch.addcmul(shift[:, None, None, None], images, scale[:, None, None, None])
    matrix, shift = color[:, :3, :3], color[:, :3, 3:]
    return torch.baddbmm(shift, matrix, images.flatten(2)).view_as(images)
