"""Latents of a generator, drawn from seeds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform


def latent_of(seed: int, size: int) -> torch.Tensor:
    """Draw the latent z (size,), standard normal in float32, that belongs to a seed.

    Args:
        seed: 0 or larger.
        size: of the latent.

    Raises:
        ValueError: a negative seed.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}, expected 0 or larger.")
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(size, dtype=np.float32))


class SeedToLatentd(MapTransform):
    """Draw a latent from the seed of an item, in its place.

    Args:
        keys: of seeds.
        size: of the latent.
        name: key of the latent.
    """

    def __init__(self, keys: KeysCollection, size: int, name: str = "latent") -> None:
        super().__init__(keys)
        self.size = size
        self.name = name

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the latent (size,) to an item."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[self.name] = latent_of(int(result[key]), self.size)
        return result
