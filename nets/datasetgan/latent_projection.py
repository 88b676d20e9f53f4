"""Latents of a generator that make given images: what brings people's labels of real images to a generator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from .generator import Generator

SPREAD_SAMPLES = 4096


class ProjectedLatents(nn.Module):
    """One latent w for each layer of each image, learned (the space W+ of Abdal et al. 2019, Image2StyleGAN).

    Args:
        n_images: N.
        n_ws: number of layers.
        w_dim: size of w.

    Attributes:
        offsets: (N, n_ws, w_dim) from the generator's mean w, at first 0.
    """

    def __init__(self, n_images: int, n_ws: int, w_dim: int) -> None:
        super().__init__()
        self.offsets = nn.Parameter(torch.zeros(n_images, n_ws, w_dim))


class LatentRenderer(nn.Module):
    """Make the images of projected latents; only the latents learn.

    Args:
        latents: of the images.
        generator: weights loaded; it is set to evaluation and keeps its weights.
    """

    spread: torch.Tensor

    def __init__(self, latents: ProjectedLatents, generator: Generator) -> None:
        super().__init__()
        self.latents = latents
        self.generator = generator.eval().requires_grad_(False)
        device = generator.mapping.average.device
        with torch.no_grad():
            random = torch.Generator().manual_seed(0)
            w = generator.mapping(torch.randn(SPREAD_SAMPLES, generator.z_dim, generator=random).to(device))
        self.register_buffer("spread", w.std(dim=0))

    def forward(self, index: torch.Tensor) -> dict[str, torch.Tensor]:
        """Make some of the images.

        Args:
            index: (B,) their numbers.

        Returns:
            ``image`` (B, C, H, W) of about -1 to 1, and ``distance`` (B,), the mean square of their latents' distance
            from the mean w, in standard deviations of w.
        """
        distance = (self.latents.offsets[index] / self.spread).square().mean(dim=(1, 2))
        return {"image": self.generator.synthesize(self.ws(index), noise="const"), "distance": distance}

    def ws(self, index: torch.Tensor) -> torch.Tensor:
        """Give the latents (B, n_ws, w_dim) of some of the images."""
        return self.generator.mapping.average + self.latents.offsets[index]


class ProjectionLoss(nn.Module):
    """Mean squared difference of images at several sizes, and how far their latents are from the usual ones.

    Args:
        sizes: sides in px of the squares that are averaged before the difference is taken; all count alike.
        latent_weight: of the latents' distance, which keeps the features such as the generator has them.

    Raises:
        ValueError: ``latent_weight`` is below 0.
    """

    def __init__(self, sizes: Sequence[int] = (1, 2, 4), latent_weight: float = 0.001) -> None:
        super().__init__()
        if not latent_weight >= 0:
            raise ValueError(f"latent_weight is {latent_weight}, expected 0 or more.")
        self.sizes = tuple(sizes)
        self.latent_weight = latent_weight

    def forward(self, rendered: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        """Compare what :class:`LatentRenderer` made with the images (B, C, H, W) of -1 to 1."""
        differences = [F.mse_loss(F.avg_pool2d(rendered["image"], k), F.avg_pool2d(image, k)) for k in self.sizes]
        return torch.stack(differences).sum() + self.latent_weight * rendered["distance"].mean()
