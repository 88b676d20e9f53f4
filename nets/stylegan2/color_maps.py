"""Affine maps of colours: matrices (N, 4, 4) from (red, green, blue, 1) to the new colour.

A neutral value gives the identity, to the last bit. Luma is along the axis of greys, (1, 1, 1).
"""

from __future__ import annotations

import math

import torch


def _map(values: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """Return the identity and ``values`` (N,) times a change (4, 4)."""
    return torch.eye(4, device=values.device) + values[:, None, None] * change


def _rgb(values: torch.Tensor) -> torch.Tensor:
    """Return the identity (4, 4) of colours alone."""
    return torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0])).to(values.device)


def _grey(values: torch.Tensor) -> torch.Tensor:
    """Return the projection (4, 4) on greys."""
    return _rgb(values).sum(1).outer(_rgb(values).sum(1)) / 3


def brightness(shift: torch.Tensor) -> torch.Tensor:
    """Add (N,) to all colours."""
    return _map(shift, _rgb(shift).sum(1).outer(torch.eye(4, device=shift.device)[3]))


def contrast(scale: torch.Tensor) -> torch.Tensor:
    """Multiply all colours by (N,)."""
    return _map(scale - 1, _rgb(scale))


def luma_flip(flip: torch.Tensor) -> torch.Tensor:
    """Negate the luma and keep the colour where (N,) is 1 and not 0."""
    return _map(-2 * flip, _grey(flip))


def hue_rotation(angle: torch.Tensor) -> torch.Tensor:
    """Turn colours around the axis of greys by angles (N,) in radians, red towards green."""
    turn = torch.zeros(4, 4)
    turn[[1, 2, 0], [0, 1, 2]] = 1 / math.sqrt(3)
    turn = (turn - turn.T).to(angle.device)
    away = _rgb(angle) - _grey(angle)
    return _map(angle.sin(), turn) + (angle.cos() - 1)[:, None, None] * away


def saturation(scale: torch.Tensor) -> torch.Tensor:
    """Multiply the distance from the grey of the same luma by (N,)."""
    return _map(scale - 1, _rgb(scale) - _grey(scale))


def recolor(images: torch.Tensor, color: torch.Tensor) -> torch.Tensor:
    """Apply maps (N, 4, 4) to images (N, 1 or 3, H, W); a single channel is taken as a grey and gives one."""
    color = color.to(images.dtype)
    if images.shape[1] == 1:
        scale, shift = color[:, :3, :3].sum((1, 2)) / 3, color[:, :3, 3].mean(1)
        return torch.addcmul(shift[:, None, None, None], images, scale[:, None, None, None])
    matrix, shift = color[:, :3, :3], color[:, :3, 3:]
    return torch.baddbmm(shift, matrix, images.flatten(2)).view_as(images)
