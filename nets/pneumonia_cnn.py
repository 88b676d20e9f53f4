"""The small network for chest X-rays of Katsamenis et al., as far as it can be reconstructed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn


class PneumoniaCNN(nn.Module):
    """Classify images (B, 3, S, S) by blocks of convolution, ReLU and pooling, and two dense layers.

    A **reconstruction**: the paper shows its network (Katsamenis et al., *Transfer learning for COVID-19 pneumonia
    detection and classification in chest X-ray images*, 2020, figure 3) and prints none of its sizes. Every block is
    Conv 3 x 3 (padding 1), ReLU, MaxPool 2; behind them Flatten, Linear, ReLU, Dropout, Linear. The layers are called
    ``features``, ``dense`` and ``head``; with the defaults they have 13.09 million weights, which start as Keras starts
    them (Glorot uniform, biases zero).

    Args:
        num_classes: number of classes.
        channels: width of each block.
        dense_units: width of the dense layer.
        dropout: share of its units that are dropped in training.
        image_size: side S of the images in pixels; sizes the dense layer.
        in_channels: channels of the images.

    Raises:
        ValueError: an image size that the blocks halve to nothing; in forward, images of another size.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        channels: Sequence[int] = (32, 64, 128, 128),
        dense_units: int = 512,
        dropout: float = 0.5,
        image_size: int = 224,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        side = image_size // 2 ** len(channels)
        if side < 1:
            raise ValueError(f"image_size is {image_size}: {len(channels)} halvings leave nothing of it.")
        blocks = []
        for width_in, width in zip((in_channels, *channels), channels, strict=False):
            blocks += [nn.Conv2d(width_in, width, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*blocks)
        self.dense = nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),
                linear=nn.Linear(channels[-1] * side**2, dense_units),
                relu=nn.ReLU(inplace=True),
                dropout=nn.Dropout(dropout),
            )
        )
        self.head = nn.Linear(dense_units, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, num_classes) of images (B, in_channels, S, S)."""
        if image.shape[-2] != self.image_size or image.shape[-1] != self.image_size:
            raise ValueError(
                f"image of {image.shape[-1]}x{image.shape[-2]} px, this network is made for {self.image_size} a side."
            )
        return self.head(self.dense(self.features(image)))
