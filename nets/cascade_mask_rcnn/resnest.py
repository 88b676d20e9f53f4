"""ResNeSt with deformable convolutions, on timm's ResNeSt.

Sources: Zhang et al., ResNeSt: Split-Attention Networks, 2020, and its detection models; Zhu et al., Deformable
ConvNets v2, 2019.
"""

from __future__ import annotations

import torch
from torch import nn
from torchvision.ops import deform_conv2d

OFFSET_GROUPS = 2
DEFORMABLE_STAGES = ("layer2", "layer3", "layer4")  # res3 to res5


class DeformableConv2d(nn.Module):
    """Convolve at positions, and with modulations, that a second convolution of the same input decides.

    The second convolution starts at zero: no position is moved, and every modulation is 0.5.

    Args:
        convolution: an ordinary convolution with zero padding, whose parameters are taken over, not copied.
        offset_groups: parts of the channels that have positions of their own.
    """

    def __init__(self, convolution: nn.Conv2d, offset_groups: int = OFFSET_GROUPS) -> None:
        super().__init__()
        self.weight = convolution.weight
        self.bias = convolution.bias
        self.stride: tuple[int, int] = convolution.stride  # type: ignore[assignment]
        self.padding: tuple[int, int] = convolution.padding  # type: ignore[assignment]
        self.dilation: tuple[int, int] = convolution.dilation  # type: ignore[assignment]
        height, width = convolution.kernel_size
        self.offset = nn.Conv2d(
            convolution.in_channels,
            3 * height * width * offset_groups,  # two offsets and a modulation each
            (height, width),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the features (B, O, H', W') of (B, C, H, W), in the precision of the offsets."""
        offsets = self.offset(image)
        if torch.jit.is_scripting():  # which needs no autocast to be off: torchvision casts to float32 under one
            return self._convolved(image, offsets).to(offsets.dtype)
        with torch.autocast(image.device.type, enabled=False):  # positions want float32
            return self._convolved(image, offsets).to(offsets.dtype)

    def _convolved(self, image: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        first, second, modulation = offsets.float().chunk(3, dim=1)
        return deform_conv2d(
            image.float(),
            torch.cat([first, second], dim=1),
            self.weight.float(),
            None if self.bias is None else self.bias.float(),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            mask=modulation.sigmoid(),
        )


def deform(resnest: nn.Module) -> nn.Module:
    """Make the 3 x 3 convolutions of the last three stages of timm's ResNeSt deformable, in place, and return it."""
    for stage in DEFORMABLE_STAGES:
        for block in resnest.get_submodule(stage).children():
            attention = block.get_submodule("conv2")
            attention.set_submodule("conv", DeformableConv2d(attention.get_submodule("conv")))  # type: ignore[arg-type]
    return resnest
