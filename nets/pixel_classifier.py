"""Pixel classifiers of DatasetGAN: an ensemble that labels a generated image by the features that it was made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

WIDTHS = {"datasetgan_128_32": (128, 32), "datasetgan_256_128": (256, 128)}


def hidden_widths(widths: str | Sequence[int], n_features: int) -> tuple[int, ...]:
    """Return the widths of the hidden layers.

    Args:
        widths: "datasetgan_128_32" or "datasetgan_256_128" of DatasetGAN's code; "paper" for half the number of
            features, 256 and 128, which are 2496, 256 and 128 at 256 px; or the widths themselves.
        n_features: of a pixel.

    Raises:
        ValueError: another name, or no widths.
    """
    if widths == "paper":
        return n_features // 2, 256, 128
    if isinstance(widths, str):
        if widths not in WIDTHS:
            raise ValueError(f"widths is {widths!r}, expected paper, {', '.join(WIDTHS)} or a list of numbers.")
        return WIDTHS[widths]
    if not widths or min(widths) < 1:
        raise ValueError(f"widths is {list(widths)}, expected one number or more, each from 1 on.")
    return tuple(widths)


class PixelClassifierEnsemble(nn.Module):
    """Classify each pixel by several small networks that have nothing in common but their input (Zhang et al. 2021).

    A network is linear layers with batch normalisation and ReLU between them, on the features of one pixel: all feature
    maps, stretched to the size of the image and put on top of each other. Here they are never put together. The first
    layer is linear, and so is the stretching: it acts on each map at that map's own size, and its results are
    stretched and added up. That is the same number at a part of the memory.

    Args:
        feature_channels: channels of each map.
        n_classes: number of classes K.
        n_classifiers: number of networks M.
        widths: of the hidden layers, see :func:`hidden_widths`.
    """

    def __init__(
        self,
        feature_channels: Sequence[int],
        n_classes: int,
        *,
        n_classifiers: int = 10,
        widths: str | Sequence[int] = "datasetgan_128_32",
    ) -> None:
        super().__init__()
        if n_classes < 2 or n_classifiers < 1:
            raise ValueError(f"{n_classes} classes and {n_classifiers} classifiers: expected 2 and 1, or more.")
        n_features = sum(feature_channels)
        sizes = [n_features, *hidden_widths(widths, n_features), n_classes]
        self.feature_channels = list(feature_channels)
        self.n_classes = n_classes
        self.n_classifiers = n_classifiers
        self.weights = nn.ParameterList(nn.Parameter(torch.empty(n_classifiers, b, a)) for a, b in pairwise(sizes))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(n_classifiers, b)) for b in sizes[1:])
        self.norms = nn.ModuleList(nn.BatchNorm1d(n_classifiers * b) for b in sizes[1:-1])
        for weight in self.weights:
            nn.init.normal_(weight, std=math.sqrt(2 / weight.shape[2]))  # Kaiming

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Classify all pixels.

        Args:
            features: maps (N, C, h, w) of ``feature_channels``, the last of the image's size (H, W).

        Returns:
            probabilities (M, N, K, H, W).
        """
        height, width = features[-1].shape[-2:]
        images = []
        # Image by image: the results of the first layer are the largest of all.
        for n in range(len(features[0])):
            hidden = self._first([f[n : n + 1] for f in features], (height, width))
            logits = self._rest(hidden.flatten(2)[0].T)
            images.append(logits.softmax(dim=-1).permute(1, 2, 0).unflatten(2, (height, width)))
        return torch.stack(images, dim=1)

    def forward_pixels(
        self, features: Sequence[torch.Tensor], image: torch.Tensor, row: torch.Tensor, column: torch.Tensor
    ) -> torch.Tensor:
        """Classify some pixels, without stretching whole maps.

        Args:
            features: as in :meth:`forward`.
            image: number of the image of each pixel (P,).
            row: of each pixel (P,).
            column: of each pixel (P,).

        Returns:
            logits (P, M, K).
        """
        side = features[-1].shape[-1]
        total: torch.Tensor | None = None
        for part, weight in zip(features, self._first_weights(), strict=True):
            gathered = gather_bilinear(part, image, row, column, side)
            y = F.linear(gathered, weight)
            total = y if total is None else total + y
        assert total is not None
        return self._rest(total + self.biases[0].flatten())

    def _first_weights(self) -> Sequence[torch.Tensor]:
        """Weights of the first layers of all networks, for each map (M * width, C)."""
        return self.weights[0].flatten(0, 1).split(self.feature_channels, dim=1)

    def _first(self, features: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """First layers of all networks on whole maps, (N, M * width, H, W)."""
        sums: dict[torch.Size, torch.Tensor] = {}
        for part, weight in zip(features, self._first_weights(), strict=True):
            y = F.conv2d(part, weight[:, :, None, None])
            own = y.shape[-2:]
            sums[own] = sums[own] + y if own in sums else y
        wide = [y if y.shape[-2:] == size else F.interpolate(y, size=size, mode="bilinear") for y in sums.values()]
        total = torch.stack(wide).sum(dim=0) if len(wide) > 1 else wide[0]
        return total + self.biases[0].flatten()[:, None, None]

    def _rest(self, hidden: torch.Tensor) -> torch.Tensor:
        """What follows the first layers: (P, M * width) to logits (P, M, K)."""
        for norm, weight, bias in zip(self.norms, self.weights[1:], self.biases[1:], strict=True):
            x = F.relu(norm(hidden)).unflatten(1, (self.n_classifiers, -1)).transpose(0, 1)
            hidden = torch.baddbmm(bias[:, None], x, weight.transpose(1, 2)).transpose(0, 1).flatten(1)
        return hidden.unflatten(1, (self.n_classifiers, -1))


def gather_bilinear(
    features: torch.Tensor, image: torch.Tensor, row: torch.Tensor, column: torch.Tensor, side: int
) -> torch.Tensor:
    """Read pixels (P, C) of maps (N, C, h, w) stretched to ``side`` px, from the four pixels around each."""
    height, width = features.shape[-2:]
    flat = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
    result: torch.Tensor | None = None
    lines = []
    for place, size in ((row, height), (column, width)):
        position = ((place + 0.5) * (size / side) - 0.5).clamp(min=0)
        low = position.floor().long().clamp(max=size - 1)
        high = (low + 1).clamp(max=size - 1)
        part = (position - low).to(features.dtype)
        lines.append(((low, 1 - part), (high, part)))
    for y, y_part in lines[0]:
        for x, x_part in lines[1]:
            value = flat[(image * height + y) * width + x] * (y_part * x_part)[:, None]
            result = value if result is None else result + value
    assert result is not None
    return result


def vote(probabilities: torch.Tensor) -> torch.Tensor:
    """Let the networks vote: the class that most of them hold likeliest.

    Where classes have as many votes the one of the smallest number wins, the background first of all, as in
    DatasetGAN's code (the mode of scipy).

    Args:
        probabilities: (M, N, K, H, W).

    Returns:
        classes (N, H, W), int64.
    """
    choices = probabilities.argmax(dim=2)
    votes = torch.stack([(choices == k).sum(dim=0) for k in range(probabilities.shape[2])])
    # argmax of equal numbers is not defined on every device: a bit more for the smaller class.
    n = len(votes)
    bonus = torch.arange(n - 1, -1, -1, device=votes.device).view(-1, 1, 1, 1)
    return (votes * n + bonus).argmax(dim=0)


def jensen_shannon(probabilities: torch.Tensor) -> torch.Tensor:
    """Measure how much the networks disagree: entropy of their mean less the mean of their entropies.

    Args:
        probabilities: (M, N, K, H, W).

    Returns:
        (N, H, W), in nats, from 0.
    """
    of_mean = torch.special.entr(probabilities.mean(dim=0)).sum(dim=1)
    return (of_mean - torch.special.entr(probabilities).sum(dim=2).mean(dim=0)).clamp(min=0)


def image_uncertainty(divergence: torch.Tensor, part: float = 0.1) -> torch.Tensor:
    """Average the divergence (N, H, W) of an image over the tenth of its pixels where it is largest, (N,)."""
    flat = divergence.flatten(1)
    return flat.topk(max(1, round(part * flat.shape[1])), dim=1).values.mean(dim=1)
