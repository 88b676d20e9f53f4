"""The style interpreter of DatasetGAN: an ensemble of classifiers of pixels by the features of a generator."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from .bilinear_rows import Resize, Taps, gathered_sum, line_neighbours, neighbours

PRESETS = ("datasetgan_128_32", "datasetgan_256_128", "paper")
ORDERS = ("linear_bn_relu", "linear_relu_bn")


class PixelClassifierEnsemble(nn.Module):
    """Label every pixel by several small classifiers, which read the features of a generator at their own sizes.

    Each classifier is Linear, BatchNorm, ReLU, ..., Linear on one pixel's features, those of all levels brought to the
    image's size (bilinear, ``align_corners=False``) and joined. Nobody builds that stack: resizing is linear and works
    on each channel alone, so the first Linear may run before it, at a level's own size, and the levels are added up
    behind it. The classifiers differ by their random start and share every batch; all run as one computation.

    Args:
        feature_channels: channels C_i of each level, as the generator names them.
        n_classes: K, 2 to 255, background included (255 is "ignore" in masks).
        n_classifiers: size n of the ensemble.
        widths: hidden widths, or a preset: "datasetgan_128_32" and "datasetgan_256_128" (upstream below and from 32
            classes), "paper" (half the features, 256, 128: 4992-2496-256-128-K at 256 px).
        order: "linear_bn_relu" (the paper) or "linear_relu_bn" (upstream).
        chunk_mb: megabytes that a first hidden layer may take in ``forward``; None: 32 on a CPU, 256 on a GPU.

    Raises:
        ValueError: a value out of its range; in a call, features of other channels, or numbers of images that differ.

    Source: Zhang et al., *DatasetGAN: Efficient labeled data factory with minimal human effort*, CVPR 2021, section 3.
    """

    def __init__(
        self,
        feature_channels: Sequence[int],
        n_classes: int,
        n_classifiers: int = 10,
        widths: str | Sequence[int] = "datasetgan_128_32",
        *,
        order: str = "linear_bn_relu",
        chunk_mb: float | None = None,
    ) -> None:
        super().__init__()
        if not feature_channels or min(feature_channels) < 1:
            raise ValueError(f"feature_channels is {list(feature_channels)}: expected 1 channel or more a level.")
        if not 2 <= n_classes <= 255:
            raise ValueError(f"n_classes is {n_classes}, expected 2 to 255, background included.")
        if n_classifiers < 1:
            raise ValueError(f"n_classifiers is {n_classifiers}, expected 1 or more.")
        if order not in ORDERS:
            raise ValueError(f"order is {order!r}, expected one of {', '.join(ORDERS)}.")
        if chunk_mb is not None and not chunk_mb > 0:
            raise ValueError(f"chunk_mb is {chunk_mb}, expected a number above 0, or None.")
        self.feature_channels = list(feature_channels)
        self.n_classes, self.n_classifiers = n_classes, n_classifiers
        self.order, self.chunk_mb = order, chunk_mb
        self.widths = hidden_widths(widths, sum(feature_channels))
        sizes = list(pairwise([sum(feature_channels), *self.widths, n_classes]))
        self.weights = nn.ParameterList(torch.empty(n_classifiers, after, before) for before, after in sizes)
        self.biases = nn.ParameterList(torch.zeros(n_classifiers, after) for _, after in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm1d(n_classifiers * width) for width in self.widths)
        for weights in self.weights:
            for weight in weights:
                nn.init.kaiming_normal_(weight, nonlinearity="relu")

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Give the class probabilities of whole images, by the running statistics in whichever mode the module is.

        Args:
            features: for each level (N, C_i, h_i, w_i). The last level has the image's size (H, W).

        Returns:
            probabilities (n, N, K, H, W), computed some rows of an image at a time.
        """
        self._check(features)
        height, width = features[-1].shape[-2:]
        row_mb = 4e-6 * len(range(self.n_classifiers)[self._parts(features[-1])[0]]) * self.widths[0] * width
        limit_mb = self.chunk_mb or (256 if features[-1].is_cuda else 32)
        step = min(height, max(1, int(limit_mb / row_mb)))
        strips = [self._strip(features, top, min(top + step, height)) for top in range(0, height, step)]
        return torch.cat(strips, dim=-2)

    def forward_pixels(
        self, features: Sequence[torch.Tensor], image_index: torch.Tensor, pixel_index: torch.Tensor
    ) -> torch.Tensor:
        """Give the logits of some pixels, whose four neighbours in each level are gathered: the path of a training.

        In training mode the batch norms take the statistics of these pixels. Features in ``channels_last`` memory are
        read in place; others are copied at each call.

        Args:
            features: for each level (N, C_i, h_i, w_i), in any floating-point type.
            image_index: (P,), which of the N images.
            pixel_index: (P,), row · W + column in the image.

        Returns:
            logits (n, P, K).
        """
        self._check(features)
        height, width = features[-1].shape[-2:]
        row, column = pixel_index // width, pixel_index % width
        taps: dict[torch.Size, Taps] = {}
        for feature in features:
            size = feature.shape[-2:]
            if size not in taps:
                places, shares = neighbours(row, column, size, (height, width))
                taps[size] = places + (image_index * size.numel())[:, None], shares
        rows = [feature.permute(0, 2, 3, 1).reshape(-1, feature.shape[1]) for feature in features]
        return self._classify(rows, [taps[feature.shape[-2:]] for feature in features], self.training)

    def _strip(self, features: Sequence[torch.Tensor], top: int, bottom: int) -> torch.Tensor:
        """Probabilities (n, N, K, bottom - top, W) of some rows of all images."""
        height, width = features[-1].shape[-2:]
        device = features[-1].device
        row = torch.arange(top, bottom, device=device).repeat_interleave(width)
        column = torch.arange(width, device=device).repeat(bottom - top)
        taps: dict[torch.Size, Taps] = {}
        spans: dict[torch.Size, slice] = {}
        for feature in features:
            size = feature.shape[-2:]
            if size not in taps:
                places, shares = neighbours(row, column, size, (height, width))
                # The rows of the level between which these rows of the image lie.
                upper, lower, _ = line_neighbours(torch.tensor([top, bottom - 1]), size[0], height)
                spans[size] = slice(int(upper[0]), int(lower[1]) + 1)
                taps[size] = places - spans[size].start * size[1], shares
        images = []
        for image in range(len(features[-1])):
            parts = [feature[image, :, spans[feature.shape[-2:]]] for feature in features]
            rows = [part.permute(1, 2, 0).reshape(-1, part.shape[0]) for part in parts]
            logits = self._classify(rows, [taps[feature.shape[-2:]] for feature in features], False)
            images.append(logits.softmax(dim=-1).transpose(1, 2).unflatten(-1, (bottom - top, width)))
        return torch.stack(images, dim=1)

    def _classify(self, rows: Sequence[torch.Tensor], taps: Sequence[Taps], batch_statistics: bool) -> torch.Tensor:
        """Classify P pixels, each a weighted sum of four rows of every level.

        Args:
            rows: for each level (M_i, C_i).
            taps: for each level the four rows (P, 4) and their weights (P, 4), the same objects at the same size.
            batch_statistics: normalise by these pixels, and not by the running statistics.

        Returns:
            logits (n, P, K).
        """
        early, late = _early_and_late(rows, taps)
        exact, device = self.weights[0].dtype, rows[0].device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else exact
        tables = [torch.cat([rows[level] for level in levels], dim=1).to(dtype) for levels in early]
        resize = Resize.joined([taps[levels[0]] for levels in early], [len(table) for table in tables])
        sums = [gathered_sum(rows[level], *taps[level], exact) for level in late]
        gathered = torch.cat(sums, dim=1).to(dtype) if late else tables[0].new_zeros(len(taps[0][0]), 0)
        logits = []
        for part in self._parts(rows[0]):
            columns = self.weights[0][part].flatten(0, 1).split(self.feature_channels, dim=1)
            *weights, of_late = (
                torch.cat([columns[level] for level in levels] or [columns[0][:, :0]], dim=1)
                for levels in [*early, late]
            )
            hidden = F.linear(gathered, of_late, self.biases[0][part].flatten())
            if resize is not None:
                coarse = [F.linear(*pair) for pair in zip(tables, weights, strict=True)]
                hidden.add_(resize(torch.cat(coarse)))
            logits.append(self._later_layers(hidden, part, batch_statistics))
        return torch.cat(logits)

    def _later_layers(self, hidden: torch.Tensor, part: slice, batch_statistics: bool) -> torch.Tensor:
        """Take the first Linear's result (P, m · width) through the rest of m classifiers, to logits (m, P, K)."""
        for norm, weight, bias in zip(self.norms, self.weights[1:], self.biases[1:], strict=True):
            if self.order == "linear_relu_bn":
                hidden = self._normalise(norm, F.relu(hidden), part, batch_statistics)
            else:
                hidden = F.relu(self._normalise(norm, hidden, part, batch_statistics))
            if len(weight[part]) == 1:  # a batch of one product takes longer than the product
                logits = F.linear(hidden, weight[part][0], bias[part][0])[None]
            else:
                one_each = hidden.unflatten(1, (len(weight[part]), -1)).transpose(0, 1)
                logits = torch.baddbmm(bias[part, None], one_each, weight[part].mT)
            hidden = logits.transpose(0, 1).flatten(1)
        return logits

    def _normalise(self, norm: nn.Module, hidden: torch.Tensor, part: slice, batch_statistics: bool) -> torch.Tensor:
        assert isinstance(norm, nn.BatchNorm1d)
        mean, variance, weight, bias = (
            values.unflatten(0, (self.n_classifiers, -1))[part].flatten()  # views: the running ones change in place
            for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
            if values is not None
        )
        return F.batch_norm(hidden, mean, variance, weight, bias, batch_statistics, norm.momentum or 0.0, norm.eps)

    def _parts(self, place: torch.Tensor) -> list[slice]:
        """The classifiers to run at once: one on a CPU, where a layer of one fits the cache, all on a GPU."""
        step = self.n_classifiers if place.is_cuda else 1
        return [slice(first, first + step) for first in range(0, self.n_classifiers, step)]

    def _check(self, features: Sequence[torch.Tensor]) -> None:
        channels = [feature.shape[1] for feature in features]
        if channels != self.feature_channels:
            raise ValueError(f"features of {channels} channels, this interpreter reads {self.feature_channels}.")
        counts = {len(feature) for feature in features}
        if len(counts) > 1:
            raise ValueError(f"features of {' and '.join(map(str, sorted(counts)))} images, expected as many a level.")


class EnsembleCrossEntropyLoss(nn.Module):
    """Average the cross entropy over the pixels and the classifiers."""

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Give the loss of logits (n, P, K) and class ids (P,), which all classifiers share."""
        return F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)))


def vote(probabilities: torch.Tensor) -> torch.Tensor:
    """Give each pixel the class that most classifiers hold for the likeliest.

    Ties go to the smallest class id, and so to the background first, as upstream (``scipy.stats.mode``).

    Args:
        probabilities: (n, N, K, H, W).

    Returns:
        class ids (N, H, W), uint8.
    """
    votes = torch.zeros(probabilities.shape[1:], dtype=torch.int16, device=probabilities.device)
    one = torch.ones((), dtype=votes.dtype, device=votes.device).expand(votes[:, :1].shape)
    for single in probabilities:
        votes.scatter_add_(1, single.argmax(dim=1, keepdim=True), one)
    return votes.argmax(dim=1).to(torch.uint8)


def jensen_shannon(probabilities: torch.Tensor) -> torch.Tensor:
    """Measure how much the classifiers disagree: the entropy of their mean less the mean of their entropies.

    Args:
        probabilities: (n, N, K, H, W).

    Returns:
        divergence (N, H, W) in nats, 0 where all agree, at most log(min(n, K)).
    """
    of_mean = torch.special.entr(probabilities.mean(dim=0)).sum(dim=1)
    mean_of = torch.special.entr(probabilities).sum(dim=2).mean(dim=0)
    return (of_mean - mean_of).clamp(min=0)


def image_uncertainty(divergence: torch.Tensor, share: float = 0.1) -> torch.Tensor:
    """Average the most uncertain pixels of each image.

    Args:
        divergence: (N, H, W), of :func:`jensen_shannon`.
        share: part of the pixels that count, one at least.

    Returns:
        scores (N,), in the unit of ``divergence``.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}, expected a number above 0, at most 1.")
    pixels = divergence.flatten(1)
    return pixels.topk(max(1, round(share * pixels.shape[1])), dim=1).values.mean(dim=1)


def hidden_widths(widths: str | Sequence[int], n_features: int) -> list[int]:
    """Turn a preset, or a list, into the widths of the hidden layers."""
    if not isinstance(widths, str):
        if not widths or any(not isinstance(width, int) or width < 1 for width in widths):
            raise ValueError(f"widths is {list(widths)}, expected whole numbers above 0, at least one.")
        return list(widths)
    if widths not in PRESETS:
        raise ValueError(f"widths is {widths!r}, expected a list or one of {', '.join(PRESETS)}.")
    if widths == "paper":
        return [max(1, n_features // 2), 256, 128]
    return [int(width) for width in widths.split("_")[1:]]


def _early_and_late(rows: Sequence[torch.Tensor], taps: Sequence[Taps]) -> tuple[list[list[int]], list[int]]:
    """Part the levels into those of fewer rows than half the pixels, by size, and the longer ones.

    The first Linear runs on the short ones before the four rows are added up, and on the long ones after it.
    """
    early: dict[int, list[int]] = {}
    late = []
    for level, (table, (places, _)) in enumerate(zip(rows, taps, strict=True)):
        if 2 * len(table) > len(places):
            late.append(level)
        else:
            early.setdefault(id(places), []).append(level)
    return list(early.values()), late
