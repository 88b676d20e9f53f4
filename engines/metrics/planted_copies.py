"""Copies of training images, degraded as a generator degrades what it has learned by heart: the control of an audit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from .copies import ORIENTATIONS, orient, shifted, smoothed


@dataclass(frozen=True)
class Degradation:
    """How planted copies are degraded, beyond a shift by 1 or 2 px, and a flip or turn.

    Attributes:
        words: its name.
        noise: standard deviation of Gaussian noise, over that of the image.
        blur_px: standard deviation of a Gaussian blur before the noise.
        averaged: average 3 x 3 px after the noise.
        contrast: factor about the image's mean.
        degrees: turned further by this angle.
        zoom: enlarged by this factor.
        required: whether an audit has to find all of them; the others show where it ends.
    """

    words: str
    noise: float = 0.05
    blur_px: float = 0.0
    averaged: bool = False
    contrast: float = 1.0
    degrees: float = 0.0
    zoom: float = 1.0
    required: bool = True


DEGRADATIONS = (
    Degradation("noise 0.05"),
    Degradation("noise 0.1", noise=0.1),
    Degradation("noise 0.2", noise=0.2),
    Degradation("averaged over 3 px", averaged=True),
    Degradation("blur 1 px", blur_px=1.0),
    Degradation("noise 0.2 averaged over 3 px", noise=0.2, averaged=True),
    Degradation("contrast +10 %", contrast=1.1),
    Degradation("blur 2 px", blur_px=2.0, required=False),
    Degradation("turned 3 degrees", degrees=3.0, required=False),
    Degradation("enlarged 3 %", zoom=1.03, required=False),
)


def plant(
    training: torch.Tensor, degradation: Degradation = DEGRADATIONS[0], *, count: int = 10, seed: int = 0
) -> tuple[torch.Tensor, list[int]]:
    """Make copies of training images that an audit has to find: each shifted, flipped or turned, and degraded.

    The shift is 1 or 2 px in both directions, the edge repeated; the noise leaves pixels at the ends of the range, as
    it leaves clipped ones; the orientation is any but the original.

    Args:
        training: (M, C, H, H) in -1 to 1.
        degradation: what is done beyond.
        count: number of copies, at most M.
        seed: of the choice, which does not depend on the degradation.

    Returns:
        the copies (count, C, H, H), and the places of their originals.
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    originals = rng.permutation(len(training))[:count].tolist()
    copies = []
    for index in originals:
        dy, dx = rng.choice([-2, -1, 1, 2], 2).tolist()
        image = degraded(shifted(training[index][None], dy, dx), degradation, generator)
        copies.append(orient(image[0], int(rng.integers(1, ORIENTATIONS))))
    return torch.stack(copies), originals


def degraded(images: torch.Tensor, degradation: Degradation, generator: torch.Generator) -> torch.Tensor:
    """Degrade images (N, C, H, H) in -1 to 1."""
    if degradation.degrees or degradation.zoom != 1:
        images = turned(images, degradation.degrees, degradation.zoom)
    if degradation.contrast != 1:
        means = images.mean((-2, -1), keepdim=True)
        images = ((images - means) * degradation.contrast + means).clamp(-1, 1)
    if degradation.blur_px:
        images = smoothed(images, degradation.blur_px)
    spreads = images.flatten(1).std(1)[:, None, None, None]
    noise = degradation.noise * spreads * torch.randn(images.shape, generator=generator)
    images = torch.where(images.abs() < 1, images + noise, images).clamp(-1, 1)
    if degradation.averaged:
        images = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return images


def turned(images: torch.Tensor, degrees: float, zoom: float) -> torch.Tensor:
    """Turn images (N, C, H, H) about their middle and enlarge them, bilinearly, their edges repeated."""
    angle = np.deg2rad(degrees)
    rows = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]]
    theta = (torch.tensor(rows, dtype=images.dtype) / zoom).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
