"""Labelled slices made while a segmenter trains, in place of files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.data import Dataset

from ...nets.datasetgan.labelled_generator import LabelledGenerator
from ...transforms.latents import latent_of


class GeneratedDataset(Dataset):
    """A data set whose items are made from their seeds when they are asked for.

    An item has ``image`` (C, H, W, 1) of [-1, 1], ``label`` (1, H, W, 1) of classes, ``seed`` and ``uncertainty``: the
    slice that ``generate`` writes for that seed, before its grey values are rounded. For a loader without workers.

    Args:
        network: makes the slices, weights loaded; it is set to evaluation.
        length: number of items.
        first_seed: of the first item; the others follow.
        transform: of an item.

    Raises:
        ValueError: the network has no interpreter, or there is no item.
    """

    def __init__(
        self,
        network: LabelledGenerator,
        length: int,
        *,
        first_seed: int = 0,
        transform: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        if network.interpreter is None or length < 1:
            raise ValueError(f"expected a generator with an interpreter and a length of 1 or more, got {length}.")
        super().__init__([{"seed": first_seed + k} for k in range(length)], transform)
        self.network = network.eval()

    @torch.no_grad()
    def _transform(self, index: int) -> Any:
        seed = self.data[index]["seed"]
        device = next(self.network.parameters()).device
        made = self.network(latent_of(seed, self.network.generator.z_dim)[None].to(device))
        item = {
            "image": made["image"][0, ..., None].cpu(),
            "label": made["label"][0, ..., None].cpu(),
            "uncertainty": float(made["uncertainty"][0]),
            "seed": seed,
        }
        return item if self.transform is None else self.transform(item)
