"""Residual attention U-Net: average-pooled stages, each weighted by channel and spatial attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution
from torch import nn


class Cbam(nn.Module):
    """Weigh features (B, C, H, W) by channel, then by place.

    Both weights lie in (0, 1), so attention only ever turns features down.

    Args:
        channels: C.
        reduction: the shared two-layer perceptron narrows C to C / reduction (at least 1).
        kernel_size: side in pixels of the convolution that looks at a place's surroundings, odd.

    Source: Woo et al., "CBAM: Convolutional Block Attention Module" (2018), eq. 2 and 3.
    """

    def __init__(self, channels: int, reduction: int = 16, kernel_size: int = 7) -> None:
        super().__init__()
        narrow = max(channels // reduction, 1)
        self.channel_perceptron = nn.Sequential(
            nn.Conv2d(channels, narrow, 1, bias=False), nn.ReLU(), nn.Conv2d(narrow, channels, 1, bias=False)
        )
        self.spatial_convolution = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def channel_weights(self, features: torch.Tensor) -> torch.Tensor:
        """Return one weight a channel, (B, C, 1, 1), from the channel's mean and maximum."""
        mean = features.mean(dim=(2, 3), keepdim=True)
        peak = features.amax(dim=(2, 3), keepdim=True)
        return torch.sigmoid(self.channel_perceptron(mean) + self.channel_perceptron(peak))

    def spatial_weights(self, features: torch.Tensor) -> torch.Tensor:
        """Return one weight a place, (B, 1, H, W), from the mean and maximum over channels."""
        pooled = torch.cat([features.mean(dim=1, keepdim=True), features.amax(dim=1, keepdim=True)], dim=1)
        return torch.sigmoid(self.spatial_convolution(pooled))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the weighted features, of the same shape."""
        features = features * self.channel_weights(features)
        return features * self.spatial_weights(features)


def _two_convolutions(in_channels: int, out_channels: int) -> nn.Sequential:
    act = ("leakyrelu", {"negative_slope": 0.2, "inplace": True})
    return nn.Sequential(
        Convolution(2, in_channels, out_channels, act=act, norm="batch", bias=False),
        Convolution(2, out_channels, out_channels, act=act, norm="batch", bias=False),
    )


class _ResidualAttention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(_two_convolutions(channels, channels), Cbam(channels))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features + self.branch(features)


class ResAttUNet(nn.Module):
    """Segment images (B, in_channels, H, W), with H and W divisible by 2 ** len(channels).

    Each stage down is two convolutions, 2 x 2 mean pooling and attention; residual attention blocks follow at the
    coarsest scale; each stage up doubles the size, convolves, attends, and is joined by the features of its scale.
    Those are taken after pooling, so there is no skip at full resolution: the finest detail the head sees is that of
    the half-size map, smoothed by the last upsampling.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits.
        channels: width of each stage down, finest first.
        residual_blocks: blocks at the coarsest scale.

    Source: the layer list of the residual attention U-Net published with the SADMA polyp code, with the attention of
    Woo et al. (2018) inside the residual branch.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        channels: Sequence[int] = (32, 64, 128, 256, 512),
        residual_blocks: int = 3,
    ) -> None:
        super().__init__()
        finer = channels[-2::-1]
        self.down = nn.ModuleList(
            nn.Sequential(_two_convolutions(before, after), nn.AvgPool2d(2), Cbam(after))
            for before, after in zip((in_channels, *channels[:-1]), channels, strict=True)
        )
        self.bottleneck = nn.Sequential(*(_ResidualAttention(channels[-1]) for _ in range(residual_blocks)))
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
                _two_convolutions(before, after),
                Cbam(after),
            )
            for before, after in zip(
                (channels[-1], *(2 * width for width in finer)), (*finer, channels[0]), strict=True
            )
        )
        self.head = nn.Conv2d(channels[0], out_channels, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, out_channels, H, W)."""
        features = image
        skips = []
        for stage in self.down:
            features = stage(features)
            skips.append(features)
        features = self.bottleneck(skips.pop())
        for stage in self.up:
            features = stage(features)
            if skips:
                features = torch.cat([features, skips.pop()], dim=1)
        return self.head(features)
