"""Generated and real images that datalists name, read as arrays of one size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clinbundles.scripts.prepare.datalist import SPLITS
from clinbundles.transforms.readers.raster import open_image
from clinbundles.transforms.readers.slices import read_datalist


@dataclass(frozen=True)
class ImageList:
    """Items of a datalist, whose images are read when they are asked for.

    Attributes:
        source: the datalist.
        root: folder that its paths start from.
        items: each with "image", and as they stand there.
    """

    source: Path
    root: Path
    items: list[dict[str, Any]]

    @property
    def names(self) -> list[str]:
        """Paths of the images as the datalist has them."""
        return [str(item["image"]) for item in self.items]

    def read(self, start: int = 0, stop: int | None = None, *, like: torch.Tensor | None = None) -> torch.Tensor:
        """Read some of the images.

        Args:
            start: first of them.
            stop: the one behind the last; None for all.
            like: an image (C, H, W) whose shape they have to have; None for that of the first read.

        Returns:
            (N, C, H, W) in -1 to 1, with one channel or three.

        Raises:
            ValueError: an image has another depth, shape or number of channels.
        """
        images: list[torch.Tensor] = []
        for item in self.items[start:stop]:
            path = self.root / item["image"]
            image = read_image(path)
            expected = like if like is not None else images[0] if images else image
            if image.shape != expected.shape:
                raise ValueError(f"{path}: {_text(image)}, expected {_text(expected)} as of the other images.")
            images.append(image)
        return torch.stack(images)


def read_list(datalist: str | Path, root: str | Path | None = None, *, split: str) -> ImageList:
    """Read the items of one split of a datalist.

    Args:
        datalist: the JSON file.
        root: folder that its paths start from; that of the file if None.
        split: name of the split.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON, or has no such split, or an item without an image.
    """
    path = Path(datalist)
    items = read_datalist(path).get(split)
    if not isinstance(items, list) or not items:
        raise ValueError(f"{path}: has no split {split}, or an empty one.")
    for number, item in enumerate(items):
        if not isinstance(item, dict) or not isinstance(item.get("image"), str):
            raise ValueError(f"{path}: item {number} of {split} has no image.")
    return ImageList(path, Path(root) if root is not None else path.parent, items)


def read_generated(folder: str | Path) -> ImageList:
    """Read the datalist.json of a folder that ``clinbundles run ct_datasetgan generate`` wrote, all its splits."""
    path = Path(folder) / "datalist.json"
    splits = [split for split in SPLITS if has_split(path, split)] or ["training"]
    items = [item for split in splits for item in read_list(path, split=split).items]
    return ImageList(path, path.parent, items)


def has_split(datalist: str | Path, split: str) -> bool:
    """Whether a datalist has a split that is not empty.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_list`.
    """
    return bool(read_datalist(datalist).get(split))


def read_image(path: Path) -> torch.Tensor:
    """Read an 8-bit image, grey or RGB, as (C, H, W) in -1 to 1.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image of 8 bits a channel, grey or RGB.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    image = open_image(path)
    if image.mode not in ("L", "RGB"):
        raise ValueError(f"{path}: pixel mode {image.mode!r}, expected 8 bits, grey or RGB.")
    values = torch.from_numpy(np.array(image, dtype=np.float32)) / 127.5 - 1
    return values[None] if values.ndim == 2 else values.permute(2, 0, 1)


def _text(image: torch.Tensor) -> str:
    channels, height, width = image.shape
    return f"{width}x{height} px and {channels} channel{'s'[: channels != 1]}"
