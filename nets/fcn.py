"""The fully convolutional network of torchvision as MONAI takes it."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.segmentation import fcn_resnet50


class FCN(nn.Module):
    """Segment images by a dilated ResNet-50 (Long et al. 2015, Fully convolutional networks for semantic segmentation).

    torchvision's, without its auxiliary head and with random weights.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.fcn = fcn_resnet50(weights=None, weights_backbone=None, num_classes=out_channels, aux_loss=False)
        if in_channels != 3:
            self.fcn.backbone.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images (B, in_channels, H, W) to logits (B, out_channels, H, W)."""
        return self.fcn(image)["out"]
