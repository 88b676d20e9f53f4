"""Random transforms of whole batches on the device, each image by its own numbers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, Transform

GREY = (0.2989, 0.587, 0.114)


class RandBatchFlipd(Randomizable, MapTransform):
    """Flip each image of a batch, and what belongs to it, along one axis, with a probability.

    Args:
        keys: tensors (B, C, H, W), all flipped alike.
        prob: of a flip.
        spatial_axis: 0 turns top and bottom, 1 left and right.
        allow_missing_keys: pass over tensors that are absent.
    """

    def __init__(
        self, keys: KeysCollection, prob: float = 0.5, spatial_axis: int = 0, *, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.prob = prob
        self.spatial_axis = spatial_axis

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the batch, flipped."""
        batch = dict(data)
        turned: torch.Tensor | None = None
        for key in self.key_iterator(batch):
            values = batch[key]
            if turned is None:
                turned = torch.from_numpy(self.R.random(len(values)) < self.prob).reshape(-1, 1, 1, 1)
                turned = turned.to(values.device, non_blocking=True)
            batch[key] = torch.where(turned, values.flip(2 + self.spatial_axis), values)
        return batch


class RandBatchColorJitter(Randomizable, Transform):
    """Change brightness, contrast, saturation and hue of each image of a batch by its own factors, in its own order.

    What torchvision's ``ColorJitter`` does to one image: every factor and the order of the four are drawn an image.

    Args:
        brightness: range of the factor.
        contrast: range of the factor.
        saturation: range of the factor.
        hue: range of the shift, as a share of the colour circle, in [-0.5, 0.5].
    """

    def __init__(
        self,
        brightness: Sequence[float],
        contrast: Sequence[float],
        saturation: Sequence[float],
        hue: Sequence[float],
    ) -> None:
        self.low, self.high = np.array([brightness, contrast, saturation, hue]).T

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return images (B, 3, H, W) in [0, 1], changed."""
        factors = torch.from_numpy(self.R.uniform(self.low, self.high, size=(len(image), 4)))
        orders = torch.from_numpy(self.R.random((len(image), 4)).argsort(axis=1))
        return jitter(image, factors.float(), orders)


class RandBatchColorJitterd(Randomizable, MapTransform):
    """Change the colours of the images of a batch: the dict form of :class:`RandBatchColorJitter`."""

    def __init__(
        self,
        keys: KeysCollection,
        brightness: Sequence[float],
        contrast: Sequence[float],
        saturation: Sequence[float],
        hue: Sequence[float],
        *,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.jitter = RandBatchColorJitter(brightness, contrast, saturation, hue)

    def set_random_state(self, seed: int | None = None, state: Any = None) -> RandBatchColorJitterd:
        """Seed the numbers of the images."""
        super().set_random_state(seed, state)
        self.jitter.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the batch with other colours."""
        batch = dict(data)
        for key in self.key_iterator(batch):
            batch[key] = self.jitter(batch[key])
        return batch


def jitter(image: torch.Tensor, factors: torch.Tensor, orders: torch.Tensor) -> torch.Tensor:
    """Change images by given factors in given orders.

    Args:
        image: (B, 3, H, W) in [0, 1].
        factors: (B, 4) of brightness, contrast, saturation and hue, on the CPU.
        orders: (B, 4), each row a permutation of 0 to 3: which of the four comes first, second, third, last. Images
            of one order go through together.
    """
    out = torch.empty_like(image)
    device_factors = factors.to(image.device, non_blocking=True)
    kinds, kind_of = orders.unique(dim=0, return_inverse=True)
    for number, order in enumerate(kinds.tolist()):
        places = (kind_of == number).nonzero()[:, 0]
        here = places.to(image.device, non_blocking=True)
        part, own = image.index_select(0, here), device_factors.index_select(0, here)
        for step in order:
            part = _changed(part, step, own[:, step].reshape(-1, 1, 1, 1))
        out.index_copy_(0, here, part)
    return out


def _changed(image: torch.Tensor, step: int, factor: torch.Tensor) -> torch.Tensor:
    if step == 0:
        return (image * factor).clamp(0, 1)
    if step == 3:
        return _hue_shifted(image, factor)
    grey = sum(weight * image[:, c : c + 1] for c, weight in enumerate(GREY))
    other = grey.mean(dim=(2, 3), keepdim=True) if step == 1 else grey  # type: ignore[union-attr]
    return torch.lerp(other.expand_as(image), image, factor).clamp(0, 1)  # type: ignore[union-attr]


def _hue_shifted(image: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Turn the hue of images by (B, 1, 1, 1) shares of the circle."""
    high, low = image.amax(1, keepdim=True), image.amin(1, keepdim=True)
    chroma = high - low
    red, green, blue = image.split(1, dim=1)
    safe = torch.where(chroma == 0, 1.0, chroma)
    hue = torch.where(
        high == red,
        (green - blue) / safe,
        torch.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    # The channel n of the turned colour is high - chroma max(0, min(k, 4 - k, 1)), k = (n + 6 hue) mod 6.
    offsets = torch.tensor([5.0, 3.0, 1.0], device=image.device, dtype=image.dtype).reshape(1, 3, 1, 1)
    k = torch.remainder(offsets + hue + 6 * shift, 6)
    return high - chroma * torch.minimum(k, 4 - k).clamp(0, 1)
