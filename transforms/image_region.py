"""Parts of a frontal chest X-ray blanked out, to see what a classifier decides by."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

REGIONS = ("whole", "border", "lungs_masked", "lungs")
# Two ellipses that hold both lung fields of nearly every frontal X-ray: centre and half axes, as shares of the width
# and height. Generous, for there is no mask of the lungs: what is left outside them is surely not lung.
_LUNG_FIELDS = ((0.31, 0.46, 0.23, 0.40), (0.69, 0.46, 0.23, 0.40))


def lung_fields(height: int, width: int) -> torch.Tensor:
    """Return a bool mask (height, width), true inside two ellipses over both lung fields."""
    y = ((torch.arange(height) + 0.5) / height)[:, None]
    x = (torch.arange(width) + 0.5) / width
    inside = torch.zeros(height, width, dtype=torch.bool)
    for centre_x, centre_y, half_width, half_height in _LUNG_FIELDS:
        inside |= ((x - centre_x) / half_width) ** 2 + ((y - centre_y) / half_height) ** 2 <= 1
    return inside


def region_mask(region: str, height: int, width: int, *, border_share: float) -> torch.Tensor:
    """Return a bool mask (height, width), true where ``region`` keeps the image.

    Args:
        region: one of REGIONS: everything, the frame along the edges, everything but the lung fields, only these.
        height, width: of the image, in pixels.
        border_share: width of the frame, as a share of the image's height and width.
    """
    if region == "whole":
        return torch.ones(height, width, dtype=torch.bool)
    if region == "border":
        mask = torch.ones(height, width, dtype=torch.bool)
        down, across = round(height * border_share), round(width * border_share)
        mask[down : height - down, across : width - across] = False
        return mask
    fields = lung_fields(height, width)
    return fields if region == "lungs" else ~fields


class ImageRegiond(MapTransform):
    """Blacken everything outside a region of images (C, H, W).

    For shortcut audits: a classifier that does well on a region without lungs has learned something else than the
    lungs' disease.

    Args:
        keys: keys of the images.
        region: "whole", "border" (the frame along the edges), "lungs_masked" (all but two ellipses over the lung
            fields) or "lungs" (only these).
        border_share: width of the frame, as a share of the image's height and width.
        allow_missing_keys: pass over keys that are absent.

    Raises:
        ValueError: unknown region, or a share that is not between 0 and 0.5.
    """

    def __init__(
        self,
        keys: KeysCollection,
        region: str = "whole",
        *,
        border_share: float = 0.1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if region not in REGIONS:
            raise ValueError(f"region is {region!r}, expected one of {', '.join(REGIONS)}.")
        if not 0 < border_share < 0.5:
            raise ValueError(f"border_share is {border_share}, expected more than 0 and less than 0.5.")
        self.region = region
        self.border_share = border_share

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Blank what is outside the region."""
        items = dict(data)
        if self.region == "whole":
            return items
        for key in self.key_iterator(items):
            image = items[key]
            mask = region_mask(self.region, *image.shape[-2:], border_share=self.border_share)
            items[key] = image * mask.to(image.device)
        return items
