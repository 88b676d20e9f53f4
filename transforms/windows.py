"""Windows of an image for training: drawn anywhere, or where a weight map says."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from monai.utils import convert_to_tensor


class RandWindowsd(Randomizable, MapTransform):
    """Sample with images (C, *S) in; a list of samples with the same ``num_samples`` windows of each (C, *window) out.

    The windows are plain tensors without meta data: for many small windows MONAI's ``RandSpatialCropSamplesd``, and the
    bookkeeping of each crop in it, takes longer than the training step itself.

    Args:
        keys: keys of the images, all of one size.
        window_size: sides of a window in pixels.
        num_samples: number of windows.
        weight_key: key of a map (1, *S) to whose values the chance of a window's centre is proportional; None draws
            uniformly.
        allow_missing_keys: pass over keys that are absent.

    Raises:
        ValueError: a window larger than the image; a weight map that is 0 throughout.
    """

    def __init__(
        self,
        keys: KeysCollection,
        window_size: Sequence[int],
        num_samples: int,
        *,
        weight_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.window_size = [int(side) for side in window_size]
        self.num_samples = num_samples
        self.weight_key = weight_key
        self.corners: list[list[int]] = []

    def randomize(self, data: Any) -> None:
        """Draw the first pixels of the windows for a sample."""
        sides = next(data[key].shape[1:] for key in self.key_iterator(data))
        room = [side - window for side, window in zip(sides, self.window_size, strict=True)]
        if min(room) < 0:
            raise ValueError(f"windows of {self.window_size} pixels do not fit an image of {list(sides)}.")
        if self.weight_key is None:
            self.corners = [[self.R.randint(0, free + 1) for free in room] for _ in range(self.num_samples)]
            return
        cumulative = np.cumsum(np.asarray(data[self.weight_key][0], dtype=np.float64))
        if not cumulative[-1] > 0:
            raise ValueError(f"{self.weight_key} sums to {cumulative[-1]}: a weight map has something above 0.")
        drawn = self.R.random_sample(self.num_samples) * cumulative[-1]
        centres = np.stack(np.unravel_index(np.searchsorted(cumulative, drawn, side="right"), tuple(sides)), axis=1)
        # A centre near the edge stands for the outermost window.
        self.corners = np.clip(centres - np.array(self.window_size) // 2, 0, room).tolist()

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> list[dict[Hashable, torch.Tensor]]:
        """Return one sample a window."""
        self.randomize(data)
        plain = {key: convert_to_tensor(data[key], track_meta=False) for key in self.key_iterator(data)}
        windows = []
        for corner in self.corners:
            area = tuple(slice(first, first + side) for first, side in zip(corner, self.window_size, strict=True))
            windows.append({**data, **{key: image[(slice(None), *area)].clone() for key, image in plain.items()}})
        return windows
