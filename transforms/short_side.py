"""Random scales of an image by the length of its short side."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, Resize
from monai.utils import ensure_tuple_rep


class RandShortSided(Randomizable, MapTransform):
    """Scale an image so that its short side has one of several lengths, drawn anew each time.

    Where the long side would become longer than ``max_size`` px, the short one stays shorter. All keys get the same
    size.

    Args:
        keys: keys of images (C, H, W) of one size.
        short_sides: lengths in px to draw from.
        max_size: the longest side in px.
        mode: interpolation of each key, as MONAI's ``Resize`` takes it.
        allow_missing_keys: pass over keys that are absent.

    Raises:
        ValueError: no length, or one below 1.

    Source: Detectron2's ``ResizeShortestEdge`` with ``sample_style="choice"``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        short_sides: Sequence[int],
        *,
        max_size: int = 1333,
        mode: str | Sequence[str] = "bilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if not short_sides or min(short_sides) < 1 or max_size < 1:
            raise ValueError(f"short_sides {list(short_sides)} and max_size {max_size}: expected lengths from 1 px on.")
        self.short_sides = tuple(short_sides)
        self.max_size = max_size
        self.mode = ensure_tuple_rep(mode, len(self.keys))

    def randomize(self, data: Any = None) -> None:
        """Draw a length."""
        self.short_side = int(self.R.choice(self.short_sides))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the images scaled."""
        self.randomize()
        result = dict(data)
        for key, mode in self.key_iterator(result, self.mode):
            sides = np.array(result[key].shape[1:])
            factor = min(self.short_side / sides.min(), self.max_size / sides.max())
            size = np.maximum(np.rint(sides * factor), 1).astype(int).tolist()
            result[key] = Resize(size, mode=mode)(result[key])
        return result
