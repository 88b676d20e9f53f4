"""The U-Net of the two-stage method: strided convolutions instead of pooling, no skip at full resolution."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.layers.factories import Conv
from torch import nn


class StridedUNet(nn.Module):
    """Segment images (B, in_channels, *S), with every side of S a multiple of 2 ** levels.

    Each encoder level is one 3 x 3 convolution of stride 2 and ReLU. Each decoder level is one 3 x 3 transposed
    convolution of stride 2 and ReLU on the features below joined with those of the encoder at the same size; the
    first one gets the deepest features twice, as in the authors' code (the paper does not say so). There is no
    normalisation, and no skip from the image itself. A 1 x 1 convolution makes the classes.

    Args:
        in_channels: 3 for colour, 1 for grey; one more where a stage-1 probability is joined to the image.
        out_channels: classes; 1 for binary.
        channels: features of each encoder level. The default has 18 842 241 parameters for RGB.
        spatial_dims: 2 or 3.

    Raises:
        ValueError: in ``forward``, sides that are not multiples of 2 ** len(channels).

    Source: Teixeira e Silva et al., Two-stage Semantic Segmentation in Neural Networks, section 4.2.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        *,
        channels: Sequence[int] = (64, 128, 256, 512, 1024),
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        self.divisor = 2 ** len(channels)
        convolution, transposed = Conv[Conv.CONV, spatial_dims], Conv[Conv.CONVTRANS, spatial_dims]
        widths = [in_channels, *channels]
        self.encoder = nn.ModuleList(
            nn.Sequential(convolution(fewer, more, 3, stride=2, padding=1), nn.ReLU(inplace=True))
            for fewer, more in pairwise(widths)
        )
        halved = [width // 2 for width in channels]
        below = [channels[-1], *halved[:0:-1]]
        self.decoder = nn.ModuleList(
            nn.Sequential(
                transposed(features + skip, out, 3, stride=2, padding=1, output_padding=1), nn.ReLU(inplace=True)
            )
            for features, skip, out in zip(below, channels[::-1], halved[::-1], strict=True)
        )
        self.classify = convolution(halved[0], out_channels, 1)
        self._initialise(spatial_dims)

    @torch.no_grad()
    def _initialise(self, spatial_dims: int) -> None:
        """Initialise as He et al.: without normalisation, torch's own lets the signal fade from level to level."""
        for name, values in self.named_parameters():
            if name.startswith("encoder") and name.endswith("weight"):
                nn.init.kaiming_normal_(values, nonlinearity="relu")
            elif name.startswith("decoder") and name.endswith("weight"):
                # (in, out, *taps); a pixel of a transposed convolution of stride 2 sums over half of each axis' taps.
                values.normal_(std=(2 * 2**spatial_dims / (values.shape[0] * values[0, 0].numel())) ** 0.5)
            elif not name.startswith("classify"):
                nn.init.zeros_(values)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, out_channels, *S)."""
        for side in image.shape[2:]:
            if side % self.divisor != 0:
                raise ValueError(f"image of shape {image.shape}: every side must be a multiple of {self.divisor}.")
        skips: list[torch.Tensor] = []
        features = image
        for level in self.encoder:
            features = level(features)
            skips.append(features)
        for level in self.decoder:
            features = level(torch.cat([features, skips.pop()], dim=1))
        return self.classify(features)
