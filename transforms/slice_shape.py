"""A check of slices as they were read, before they are brought to the size of a network."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey, MetaKeys


class SliceShaped(MapTransform):
    """Refuse slices that were read in another size, or with another number of channels, than a network is trained with.

    Resizing would hide it: a slice that is not square is distorted, one that is too small is blurred, and a label map
    of another size than its slice labels other pixels.

    Args:
        keys: keys of slices (C, H, W, 1), which may have been resized since.
        size: side in px that they must have had.
        channels: of the image, the first key.
        varied: refuse images of one grey value too.

    Raises:
        ValueError: a slice is not so; the message names its file.
    """

    def __init__(self, keys: KeysCollection, size: int, *, channels: int = 1, varied: bool = False) -> None:
        super().__init__(keys)
        self.size = size
        self.channels = channels
        self.varied = varied

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data``, all of it as it was."""
        result = dict(data)
        for key in self.key_iterator(result):
            self._check(result[key], is_image=key == self.keys[0])
        return result

    def _check(self, values: MetaTensor, *, is_image: bool) -> None:
        path = values.meta[ImageMetaKey.FILENAME_OR_OBJ]
        height, width, *depth = (int(length) for length in values.meta[MetaKeys.SPATIAL_SHAPE])
        if (height, width, *depth) != (self.size, self.size, 1):
            size = "x".join(map(str, (width, height, *(n for n in depth if n != 1))))
            raise ValueError(
                f"{path}: is {size} px, and image_size is {self.size}: prepare the slices with that --image_size, or "
                "give theirs."
            )
        if is_image and values.shape[0] != self.channels:
            raise ValueError(f"{path}: has {values.shape[0]} channels, and in_channels is {self.channels}.")
        if is_image and self.varied and values.min() == values.max():
            raise ValueError(f"{path}: all its pixels have one value, so that there is nothing to learn from it.")
