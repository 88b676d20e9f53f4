"""A check that an image and its label were read in one size, before both are brought to that of a network."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey, MetaKeys


class SameSizeCheckd(MapTransform):
    """Refuse labels that were read in another size than their image: resizing would lay them beside it.

    Args:
        keys: keys of the image, and then of its labels, (C, H, W), which may have been resized since.

    Raises:
        ValueError: a label is not so; the message names its file.
    """

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data``, all of it as it was."""
        result = dict(data)
        sizes = [[int(length) for length in result[key].meta[MetaKeys.SPATIAL_SHAPE][:2]] for key in self.keys]
        for key, (height, width) in zip(self.keys[1:], sizes[1:], strict=True):
            if [height, width] != sizes[0]:
                raise ValueError(
                    f"{result[key].meta[ImageMetaKey.FILENAME_OR_OBJ]}: is {width}x{height} px, and its image "
                    f"{sizes[0][1]}x{sizes[0][0]}."
                )
        return result
