"""TransUNet: a ResNet-50 whose coarsest map is read by a vision transformer, and a U-Net decoder above both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from monai.networks.blocks import Convolution
from timm.layers import StdConv2dSame, resample_abs_pos_embed
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import Block
from torch import nn

STEM_CHANNELS = 64
STRIDE = 16


class HybridEncoder(nn.Module):
    """Encode images (B, C, H, W) as the transformer's map at 1/16 and convolutional maps at 1/8, 1/4 and 1/2.

    Parts are named as in timm's vit_base_r50_s16 models, so that a state dict of those loads by name. A position
    embedding learned on another grid is interpolated when a state dict is loaded, and its class token is dropped;
    an image of another size than image_size has it interpolated on the way.

    Args: as in TransUNet.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: int,
        units: Sequence[int],
        channels: Sequence[int],
        hidden: int,
        mlp: int,
        heads: int,
        depth: int,
        dropout: float,
    ) -> None:
        super().__init__()
        if image_size < STRIDE or image_size % STRIDE:
            raise ValueError(f"TransUNet: image_size is {image_size}, it must be a multiple of {STRIDE}")
        self.grid = image_size // STRIDE
        backbone = ResNetV2(
            layers=list(units),
            channels=tuple(channels),
            num_classes=0,
            global_pool="",
            in_chans=in_channels,
            stem_chs=STEM_CHANNELS,
            stem_type="same",
            preact=False,
            conv_layer=partial(StdConv2dSame, eps=1e-8),
        )
        self.patch_embed = nn.ModuleDict({"backbone": backbone, "proj": nn.Conv2d(channels[-1], hidden, 1)})
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, self.grid**2, hidden), std=0.02))
        self.pos_drop = nn.Dropout(dropout)
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.Sequential(
            *(
                Block(hidden, heads, mlp_ratio=mlp / hidden, qkv_bias=True, proj_drop=dropout, norm_layer=norm)
                for _ in range(depth)
            )
        )
        self.norm = norm(hidden)
        self.register_load_state_dict_pre_hook(_fit_position_embedding)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the transformer's map (B, hidden, H/16, W/16) and the three maps to join, coarsest first."""
        backbone: Any = self.patch_embed["backbone"]
        half = backbone.stem.norm(backbone.stem.conv(image))
        quarter = backbone.stages[0](backbone.stem.pool(half))
        eighth = backbone.stages[1](quarter)
        patches = self.patch_embed["proj"](backbone.stages[2](eighth))
        rows, columns = patches.shape[-2:]
        positions = self.pos_embed
        if (rows, columns) != (self.grid, self.grid):
            positions = resample_abs_pos_embed(positions, new_size=[rows, columns], num_prefix_tokens=0)
        tokens = self.pos_drop(patches.flatten(2).transpose(1, 2) + positions)
        tokens = self.norm(self.blocks(tokens))
        return tokens.transpose(1, 2).unflatten(2, (rows, columns)), [eighth, quarter, half]


def _fit_position_embedding(module: HybridEncoder, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Put the position embedding of state_dict on the module's grid (torch hands the hook a copy of the dict)."""
    positions = state_dict.get(f"{prefix}pos_embed")
    if positions is not None and positions.shape[1] != module.grid**2:
        # A square grid plus one class token is never a square itself, except 0 + 1.
        class_tokens = 0 if math.isqrt(positions.shape[1]) ** 2 == positions.shape[1] else 1
        state_dict[f"{prefix}pos_embed"] = resample_abs_pos_embed(
            positions[:, class_tokens:], new_size=[module.grid, module.grid], num_prefix_tokens=0
        )


class TransUNet(nn.Module):
    """Segment images (B, in_channels, H, W), with H and W divisible by 16.

    The default is R50-ViT-B/16. Dropout also follows each attention block's projection.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits.
        image_size: side in pixels of the square images that the position embedding is made for.
        units: residual units in each of the three convolutional stages.
        channels: width of each of the three convolutional stages, multiples of 128 (group norm of a quarter of it).
        hidden: width of the transformer, a multiple of heads.
        mlp: width of the transformer's perceptrons.
        heads: attention heads.
        depth: transformer blocks.
        dropout: probability in the transformer.
        decoder_channels: width of the four decoder stages, at 1/8, 1/4, 1/2 and full size.

    Raises:
        ValueError: image_size is not a multiple of 16.

    Source: Chen et al., "TransUNet: Transformers Make Strong Encoders for Medical Image Segmentation" (2021).
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        *,
        image_size: int = 512,
        units: Sequence[int] = (3, 4, 9),
        channels: Sequence[int] = (256, 512, 1024),
        hidden: int = 768,
        mlp: int = 3072,
        heads: int = 12,
        depth: int = 12,
        dropout: float = 0.1,
        decoder_channels: Sequence[int] = (256, 128, 64, 16),
    ) -> None:
        super().__init__()
        self.encoder = HybridEncoder(
            in_channels=in_channels,
            image_size=image_size,
            units=units,
            channels=channels,
            hidden=hidden,
            mlp=mlp,
            heads=heads,
            depth=depth,
            dropout=dropout,
        )
        entry = 2 * decoder_channels[0]
        self.entry = _convolution(hidden, entry)
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        skips = (channels[1], channels[0], STEM_CHANNELS, 0)
        self.decoder = nn.ModuleList(
            nn.Sequential(_convolution(before + skip, after), _convolution(after, after))
            for before, skip, after in zip((entry, *decoder_channels[:-1]), skips, decoder_channels, strict=True)
        )
        self.head = nn.Conv2d(decoder_channels[-1], out_channels, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, out_channels, H, W)."""
        features, skips = self.encoder(image)
        features = self.entry(features)
        for index, stage in enumerate(self.decoder):
            features = self.upsample(features)
            if index < len(skips):
                features = torch.cat([features, skips[index]], dim=1)
            features = stage(features)
        return self.head(features)


def _convolution(in_channels: int, out_channels: int) -> nn.Module:
    return Convolution(2, in_channels, out_channels, act="relu", norm="batch", bias=False)
