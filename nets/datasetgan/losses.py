"""Losses of StyleGAN2: non-saturating, with a penalty on the discriminator's gradient and one on path lengths."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


def generator_loss(fake_scores: torch.Tensor) -> torch.Tensor:
    """Mean of -log sigmoid(D(G(z))), of scores (N, 1) of generated images (Goodfellow et al. 2014)."""
    return F.softplus(-fake_scores).mean()


def discriminator_loss(real_scores: torch.Tensor, fake_scores: torch.Tensor) -> torch.Tensor:
    """Mean of -log sigmoid(D(x)) - log(1 - sigmoid(D(G(z)))), of scores (N, 1)."""
    return F.softplus(-real_scores).mean() + F.softplus(fake_scores).mean()


def gradient_penalty(images: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """R1 without its factor: half the mean squared norm of the score's gradient (Mescheder et al. 2018).

    Args:
        images: (N, C, H, W) that ``scores`` were computed from, requiring a gradient.
        scores: (N, 1).

    Returns:
        A number that can be differentiated once more.
    """
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean() / 2


class PathLengthPenalty(nn.Module):
    """Penalise how far the length of an image's step, for one in w, is from its running mean (Karras et al. 2020).

    Args:
        decay: of the running mean, a batch.
    """

    mean: torch.Tensor

    def __init__(self, decay: float = 0.01) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, images: torch.Tensor, ws: torch.Tensor) -> torch.Tensor:
        """Return the penalty of images (N, C, H, W) made from ws (N, n_ws, w_dim), which require a gradient."""
        noise = torch.randn_like(images) / math.sqrt(images.shape[2] * images.shape[3])
        (gradient,) = torch.autograd.grad((images * noise).sum(), ws, create_graph=True)
        lengths = gradient.float().square().sum(dim=2).mean(dim=1).sqrt()
        mean = self.mean.lerp(lengths.detach().mean(), self.decay)
        self.mean.copy_(mean)
        return (lengths - mean).square().mean()
