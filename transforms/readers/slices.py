"""Readers of slices for MONAI's ``LoadImaged``: grey images of 8 bits, and label maps, each a volume of one slice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .decoding import open_image
from .images import RowMajorReader

GREY_MODES = ("1", "L")


class SliceReader(RowMajorReader):
    """Read a grey image of 8 bits as uint8 (H, W, 1): a volume of one slice, rows towards posterior.

    What a value means (for CT the window of Hounsfield units) is said by the datalist that lists the image.

    Raises:
        ValueError: the file is corrupt, coloured or deeper than 8 bits.
    """

    def _decode(self, path: Path) -> np.ndarray:
        return read_grey(path)[..., None]

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        """Return the volume with meta data that say that it has no channel axis."""
        values, meta = super().get_data(img)
        meta["original_channel_dim"] = float("nan")
        meta["spatial_shape"] = np.asarray(img.shape)
        return values, meta


class LabelMapReader(SliceReader):
    """Read the classes of a slice as uint8 (H, W, 1).

    Args:
        class_names: names of the classes; the values of the file are their places.

    Raises:
        ValueError: a value is no class, as where a mask of 0 and 255 is taken for a label map.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = class_names

    def _decode(self, path: Path) -> np.ndarray:
        return read_label_map(path, self.class_names)[..., None]


def read_label_map(path: Path, class_names: Sequence[str]) -> np.ndarray:
    """Read the classes of a slice as uint8 (H, W).

    Raises:
        FileNotFoundError: no such file.
        ValueError: as :func:`read_grey`, or a value is no class.
    """
    values = read_grey(path, as_stored=True)
    if (highest := int(values.max(initial=0))) >= len(class_names):
        raise ValueError(
            f"{path}: holds the value {highest}, and there are {len(class_names)} classes, 0 to "
            f"{len(class_names) - 1}: {', '.join(class_names)}."
        )
    return values


def read_grey(path: Path, *, as_stored: bool = False) -> np.ndarray:
    """Read a grey image of 8 bits as uint8 (H, W).

    Args:
        path: the file.
        as_stored: also take the numbers of a palette image, not their colours: label maps are often saved so.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is corrupt, coloured or deeper than 8 bits.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    image = open_image(path)
    if image.mode in ("P", "PA") and as_stored:
        return np.asarray(image.getchannel(0) if image.mode == "PA" else image).astype(np.uint8)
    if image.mode == "1" and as_stored:
        return np.asarray(image).astype(np.uint8)
    if image.mode not in GREY_MODES:
        values = np.asarray(image)
        if image.mode in ("RGB", "RGBA") and (values[..., :3] == values[..., :1]).all():
            return values[..., 0]
        raise ValueError(f"{path}: pixel mode {image.mode!r}, expected a grey image of 8 bits.")
    return np.asarray(image.convert("L"))
