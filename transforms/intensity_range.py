"""A check that an image has the range of values that a network was trained on."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey


class IntensityRangeCheckd(MapTransform):
    """Refuse images whose values are not in the range that a network was trained on, and give them as float32.

    A host that reads files by a reader of its own, such as MONAI Deploy, may hand over stored values, Hounsfield units
    or values from 0 to 1: the network would take them for dark or bright pictures, and find another class.

    Args:
        keys: keys of images (C, ...).
        low: lowest value there may be.
        high: highest value there may be.

    Raises:
        ValueError: a value is not finite or outside, or all are fractions from 0 to 1 where more is expected; the
            message names the file where the image has one.
    """

    def __init__(self, keys: KeysCollection, low: float = 0.0, high: float = 255.0) -> None:
        super().__init__(keys)
        self.low = low
        self.high = high

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the images as float32."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = torch.as_tensor(result[key]).float()
            if problem := self._problem(image):
                meta = image.meta if isinstance(image, MetaTensor) else {}
                raise ValueError(
                    f"{meta.get(ImageMetaKey.FILENAME_OR_OBJ, key)}: {problem}, and the network was trained on "
                    f"{self.low:g} to {self.high:g}: read the file by the bundle's own reader."
                )
            result[key] = image
        return result

    def _problem(self, image: torch.Tensor) -> str:
        low, high = (float(end) for end in torch.aminmax(image))  # not finite if any value is not
        if not low >= self.low or not high <= self.high:
            return f"its values are {low:g} to {high:g}"
        if low >= 0 and high <= 1 < self.high and not torch.equal(image, image.round()):
            return f"its values are fractions, {low:g} to {high:g}"
        return ""
