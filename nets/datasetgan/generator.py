"""Generator of StyleGAN2: a mapping network, and a synthesis network of styled convolutions with skips."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import nn

from .layers import EqualizedLinear, StyledConv2d, ToImage
from .resampling import double


def channels_at(size: int, channel_base: int, channel_max: int) -> int:
    """Number of channels at a size in px: base / size, at most the largest number.

    Raises:
        ValueError: none is left.
    """
    if min(channel_base // size, channel_max) < 1:
        raise ValueError(
            f"channel_base is {channel_base} and channel_max {channel_max}: no channel is left at {size} px."
        )
    return min(channel_base // size, channel_max)


def sizes_up_to(image_size: int) -> list[int]:
    """Sizes of the blocks in px: 4, 8, ... up to the image's.

    Raises:
        ValueError: the size is no power of two from 8 on.
    """
    if not isinstance(image_size, int) or image_size < 8 or image_size & (image_size - 1):
        raise ValueError(f"image_size is {image_size}, expected a power of two from 8 on, such as 64 or 256.")
    return [2**k for k in range(2, int(math.log2(image_size)) + 1)]


class MappingNetwork(nn.Module):
    """Map latents z to latents w: a few linear layers that learn at a hundredth of the rate.

    Args:
        z_dim: size of z.
        w_dim: size of w.
        layers: number of linear layers.
    """

    average: torch.Tensor

    def __init__(self, z_dim: int, w_dim: int, layers: int = 2) -> None:
        super().__init__()
        sizes = [z_dim] + [w_dim] * layers
        self.layers = nn.Sequential(
            *(EqualizedLinear(a, b, lr_multiplier=0.01, activate=True) for a, b in pairwise(sizes))
        )
        self.register_buffer("average", torch.zeros(w_dim))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Map z (N, z_dim), brought to unit second moment, to w (N, w_dim)."""
        with torch.autocast(z.device.type, enabled=False):  # tiny, and its rates are a hundredth: in full precision
            return self.layers(z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt())

    @torch.no_grad()
    def track(self, w: torch.Tensor, beta: float = 0.995) -> None:
        """Move the running mean of w, which truncation starts from, towards a batch of w."""
        self.average.lerp_(w.detach().float().mean(dim=0), 1 - beta)


class SynthesisBlock(nn.Module):
    """Styled convolutions of one size, and their part of the image.

    Args:
        in_channels: of the input; 0 for the first block, which starts from a learned constant.
        out_channels: of the convolutions.
        w_dim: size of the latent w.
        size: side in px.
        image_channels: of the image.
        style: "modulation" or "adain".
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        size: int,
        image_channels: int,
        style: Literal["modulation", "adain"],
    ) -> None:
        super().__init__()
        self.const: nn.Parameter | None = None
        self.conv0: StyledConv2d | None = None
        if in_channels:
            self.conv0 = StyledConv2d(in_channels, out_channels, w_dim, size, up=True, style=style)
        else:
            self.const = nn.Parameter(torch.randn(out_channels, size, size))
        self.conv1 = StyledConv2d(out_channels, out_channels, w_dim, size, style=style)
        self.to_image = ToImage(out_channels, image_channels, w_dim)

    def forward(
        self, x: torch.Tensor | None, image: torch.Tensor | None, ws: torch.Tensor, noise: str
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Apply the block.

        Args:
            x: features (N, in_channels, H / 2, W / 2); None in the first block.
            image: of the blocks before (N, image_channels, H / 2, W / 2); None in the first block.
            ws: latents (N, 3, w_dim): of the two convolutions and of the image. The first block takes the last two.
            noise: as in :class:`.layers.StyledConv2d`.

        Returns:
            the two feature maps (N, out_channels, H, W), and the image so far (N, image_channels, H, W).
        """
        if self.conv0 is None:
            assert self.const is not None
            first = self.const.expand(len(ws), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        else:
            assert x is not None
            first = self.conv0(x, ws[:, 0], noise)
        second = self.conv1(first, ws[:, 1], noise)
        part = self.to_image(second, ws[:, 2])
        return first, second, part if image is None else double(image) + part


class Generator(nn.Module):
    """Generate images from random latents (Karras et al. 2020, Analyzing and improving the image quality of StyleGAN).

    Mapping network, then a synthesis network with skips. A layer has a latent w of its own: ``ws`` is (N, n_ws, w_dim).

    Args:
        image_size: side of the images in px, a power of two.
        image_channels: of the images.
        z_dim: size of the latent z.
        w_dim: size of the latent w.
        mapping_layers: of the mapping network.
        channel_base: channels times px of a block; the paper's networks have 16384 at 256 px, or 32768.
        channel_max: most channels of a block.
        style: "modulation" for StyleGAN2, "adain" for the normalisation of StyleGAN in the same network.

    Raises:
        ValueError: ``image_size`` is no power of two, or a number is below 1.
    """

    def __init__(
        self,
        image_size: int = 64,
        image_channels: int = 1,
        z_dim: int = 64,
        w_dim: int = 64,
        mapping_layers: int = 2,
        channel_base: int = 1024,
        channel_max: int = 64,
        style: Literal["modulation", "adain"] = "modulation",
    ) -> None:
        super().__init__()
        for name, number in (
            ("image_channels", image_channels),
            ("z_dim", z_dim),
            ("w_dim", w_dim),
            ("mapping_layers", mapping_layers),
        ):
            if number < 1:
                raise ValueError(f"{name} is {number}, expected 1 or more.")
        sizes = sizes_up_to(image_size)
        widths = [channels_at(size, channel_base, channel_max) for size in sizes]
        self.image_size = image_size
        self.image_channels = image_channels
        self.z_dim = z_dim
        self.w_dim = w_dim
        # One for each convolution, of which the first block has one less, and one for the last image.
        self.n_ws = 2 * len(sizes)
        self.feature_channels = [width for width in widths for _ in range(2)]
        self.feature_sizes = [size for size in sizes for _ in range(2)]
        self.mapping = MappingNetwork(z_dim, w_dim, mapping_layers)
        self.blocks = nn.ModuleList(
            SynthesisBlock(before, width, w_dim, size, image_channels, style)
            for before, width, size in zip([0, *widths[:-1]], widths, sizes, strict=True)
        )

    def forward(
        self, z: torch.Tensor, *, truncation: float = 1.0, truncated_layers: int | None = None, noise: str = "random"
    ) -> torch.Tensor:
        """Generate one image for each latent.

        Args:
            z: (N, z_dim), standard normal.
            truncation: factor on the distance of w from its mean; 1 leaves it.
            truncated_layers: number of first layers that truncation acts on; None for all.
            noise: "random", "const" or "none".

        Returns:
            (N, image_channels, image_size, image_size), about -1 to 1, not clipped.
        """
        return self.synthesize(self.map(z, truncation=truncation, truncated_layers=truncated_layers), noise=noise)

    def map(self, z: torch.Tensor, *, truncation: float = 1.0, truncated_layers: int | None = None) -> torch.Tensor:
        """Map z (N, z_dim) to one w for each layer, (N, n_ws, w_dim)."""
        return self.spread(self.mapping(z), truncation=truncation, truncated_layers=truncated_layers)

    def spread(self, w: torch.Tensor, *, truncation: float = 1.0, truncated_layers: int | None = None) -> torch.Tensor:
        """Repeat w (N, w_dim) for each layer, drawn towards the mean in the first of them."""
        ws = w[:, None].repeat(1, self.n_ws, 1)
        if truncation != 1:
            part = slice(None, truncated_layers)
            ws[:, part] = self.mapping.average.lerp(ws[:, part], truncation)
        return ws

    def synthesize(self, ws: torch.Tensor, *, noise: str = "random") -> torch.Tensor:
        """Make images (N, image_channels, image_size, image_size) from ws (N, n_ws, w_dim)."""
        return self.synthesis_features(ws, noise=noise)[0]

    def synthesis_features(self, ws: torch.Tensor, *, noise: str = "const") -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Make images, and give the feature maps that they are made from.

        Args:
            ws: (N, n_ws, w_dim).
            noise: "random", "const" or "none"; only without random noise do features and image repeat.

        Returns:
            images (N, image_channels, image_size, image_size), and the maps [const, b4.conv1, b8.conv0, b8.conv1, ...],
            each (N, C, h, w) behind its activation, of ``feature_channels`` and ``feature_sizes``.

        Raises:
            ValueError: ``ws`` has another shape.
        """
        if ws.shape[1:] != (self.n_ws, self.w_dim):
            raise ValueError(f"ws is {tuple(ws.shape)}, expected (N, {self.n_ws}, {self.w_dim}).")
        features: list[torch.Tensor] = []
        x: torch.Tensor | None = None
        image: torch.Tensor | None = None
        # The first block has no first convolution: its two latents are those at 0 and 1.
        for start, block in zip(range(-1, self.n_ws - 2, 2), self.blocks, strict=True):
            own = ws[:, start : start + 3] if start >= 0 else torch.cat([ws[:, :1], ws[:, :2]], dim=1)
            first, x, image = block(x, image, own, noise)
            features += [first, x]
        assert image is not None
        return image, features
