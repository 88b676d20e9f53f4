"""Attention maps from fixations: the duration-weighted Gaussians that one or several viewers leave on an image."""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import ensure_tuple_rep

logger = logging.getLogger(__name__)

GAZEMEDSEG_SIGMA_PX = 70.0
# Below this a Gaussian can slip between two pixel centres and leave next to nothing.
_SMALLEST_SIGMA_PX = 0.25


def as_observers(fixations: Any) -> list[np.ndarray]:
    """Check fixations, of one observer or a list over observers, and return a float64 (n, 3) per observer.

    Args:
        fixations: rows of x, y (fractions of image width and height, origin top-left) and duration in ms, as nested
            lists, arrays or tensors.

    Raises:
        ValueError: rows that are not three finite numbers, or a negative duration.
    """
    try:
        groups = list(fixations)
        first = next((group for group in groups if len(group)), None)
    except TypeError as error:
        raise ValueError(f"fixations are {fixations!r}: expected a list over observers of (n, 3) rows") from error
    if first is not None and np.ndim(first[0]) == 0:
        groups = [groups]
    return [_checked_observer(group, number) for number, group in enumerate(groups)]


def _checked_observer(group: Any, number: int) -> np.ndarray:
    try:
        rows = np.asarray(group, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"fixations of observer {number} are not rows of three numbers: {error}") from error
    if rows.size == 0:
        return np.empty((0, 3))
    if rows.ndim != 2 or rows.shape[1] != 3:
        raise ValueError(f"fixations of observer {number} have shape {rows.shape}, not (n, 3) of x, y, duration_ms")
    for row, (x, y, duration) in enumerate(rows):
        if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(duration)):
            raise ValueError(f"fixation {row} of observer {number} is not finite: x={x}, y={y}, duration_ms={duration}")
        if duration < 0:
            raise ValueError(f"fixation {row} of observer {number} has the negative duration_ms {duration}")
    return rows


def check_gaze(
    datalist: Any, split: str, *, arm: str, allow_missing_gaze: bool = False, key: str = "fixations"
) -> None:
    """Refuse, before a training on gaze begins, a datalist that has none on some of the images.

    Args:
        datalist: the JSON file; what is no file is let pass.
        split: of the images to train on.
        arm: "original" needs no gaze.
        allow_missing_gaze: no image needs any.

    Raises:
        ValueError: an image has no gaze; the message says on how many.
    """
    if arm == "original" or allow_missing_gaze or not isinstance(datalist, str | Path) or not Path(datalist).is_file():
        return
    content = json.loads(Path(datalist).read_text(encoding="utf-8"))
    items = content.get(split) if isinstance(content, Mapping) else None
    if not isinstance(items, list):
        return  # what reads the items says what is wrong with them
    missing = sum(isinstance(item, Mapping) and item.get("fixations") is None for item in items)
    if missing:
        some = "" if missing == len(items) else f" on {missing} of {len(items)} images"
        raise ValueError(
            f"the datalist has no gaze{some}: add --arm original to train without ({datalist}, {split} split). "
            "clinbundles add-gaze adds recorded gaze, clinbundles simulate-gaze draws some from masks, and "
            "--allow_missing_gaze true leaves such images unblurred."
        )


class GazeToAttentionMap(Transform):
    """Turn the fixations of one or several observers into a float32 attention map (1, H, W) in [0, 1].

    map(r, c) = sum over fixations of duration * exp(-((r - y_px)^2 / (2 sigma_y^2) + (c - x_px)^2 / (2 sigma_x^2))),
    each observer divided by its total duration before the sum, then min-max scaled. A fraction x lies at the pixel
    coordinate x * W - 0.5, so nothing is rounded to the pixel grid. The sum is exact: Gaussians are separable, so one
    matrix product replaces the blur of a rasterised map. No gaze, or a map without contrast, gives zeros.

    Fixations outside the image (x or y outside 0..1) are dropped; their number is logged at level debug, and as a
    warning where none is left.

    Args:
        sigma_px: standard deviation in pixels; 70, the width GazeMedSeg uses on its original images, where neither
            sigma is given.
        sigma_deg: standard deviation in degrees of visual angle instead; needs the next two.
        viewing_distance_mm: eye to screen, in mm.
        px_per_mm: pixels of the shown image per mm of the screen.
        reference_size: (height, width) of the image that sigma refers to, where it is not the image at hand, such as
            the original before a resize; sigma is scaled to the image at hand, per axis.

    Raises:
        ValueError: sigma given twice, incompletely, or not positive; sigma under a quarter of a pixel once scaled; bad
            fixations.

    Source: Zhong et al., Weakly-supervised Medical Image Segmentation with Gaze Annotations (GazeMedSeg), heat map of
    fixations; degrees to pixels by 2 d tan(deg / 2).
    """

    def __init__(
        self,
        sigma_px: float | None = None,
        *,
        sigma_deg: float | None = None,
        viewing_distance_mm: float | None = None,
        px_per_mm: float | None = None,
        reference_size: Sequence[int] | None = None,
    ) -> None:
        lengths = {
            "sigma_px": sigma_px,
            "sigma_deg": sigma_deg,
            "viewing_distance_mm": viewing_distance_mm,
            "px_per_mm": px_per_mm,
        }
        for name, value in lengths.items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}: expected a positive number")
        if sigma_px is not None and sigma_deg is not None:
            raise ValueError(f"give sigma_px or sigma_deg, not both ({sigma_px} px and {sigma_deg} degrees)")
        if sigma_deg is not None:
            if viewing_distance_mm is None or px_per_mm is None:
                raise ValueError("sigma_deg needs viewing_distance_mm and px_per_mm")
            if sigma_deg >= 180:
                raise ValueError(f"sigma_deg is {sigma_deg}: expected less than 180 degrees")
            sigma_px = 2 * viewing_distance_mm * math.tan(math.radians(sigma_deg) / 2) * px_per_mm
        elif viewing_distance_mm is not None or px_per_mm is not None:
            raise ValueError("viewing_distance_mm and px_per_mm go with sigma_deg, which is None")
        self.sigma_px = GAZEMEDSEG_SIGMA_PX if sigma_px is None else float(sigma_px)
        self.reference_size = None if reference_size is None else _checked_size(reference_size, "reference_size")

    def __call__(  # type: ignore[override]
        self, fixations: Any, spatial_size: Sequence[int], reference_size: Sequence[int] | None = None
    ) -> torch.Tensor:
        """Return the map (1, H, W) of a `spatial_size` (H, W); a `reference_size` here goes before the object's."""
        height, width = _checked_size(spatial_size, "spatial_size")
        sigma_y, sigma_x = self._sigma_yx(height, width, reference_size)
        total = torch.zeros(height, width, dtype=torch.float64)
        for observer in self._inside(as_observers(fixations)):
            x, y, duration = torch.from_numpy(observer).unbind(dim=1)
            if duration.sum() > 0:
                along_y = _gaussian(y * height - 0.5, sigma_y, height)
                along_x = _gaussian(x * width - 0.5, sigma_x, width)
                total += torch.einsum("n,nh,nw->hw", duration / duration.sum(), along_y, along_x)
        low, high = total.min(), total.max()
        # A contrast that float32 cannot tell from rounding is none.
        if high - low <= torch.finfo(torch.float32).eps * high:
            return torch.zeros(1, height, width)
        return ((total - low) / (high - low)).to(torch.float32)[None]

    def _sigma_yx(self, height: int, width: int, reference_size: Sequence[int] | None) -> tuple[float, float]:
        if reference_size is not None:
            reference = _checked_size(reference_size, "reference_size")
        else:
            reference = self.reference_size or (height, width)
        sigma_y, sigma_x = self.sigma_px * height / reference[0], self.sigma_px * width / reference[1]
        if min(sigma_y, sigma_x) < _SMALLEST_SIGMA_PX:
            raise ValueError(
                f"sigma is {sigma_y:.3g} by {sigma_x:.3g} px on an image of {height} x {width}: "
                f"under {_SMALLEST_SIGMA_PX} px fixations vanish between pixels"
            )
        return sigma_y, sigma_x

    @staticmethod
    def _inside(observers: list[np.ndarray]) -> list[np.ndarray]:
        inside = [rows[((rows[:, :2] >= 0) & (rows[:, :2] <= 1)).all(axis=1)] for rows in observers]
        count = sum(map(len, observers))
        loss = count - sum(map(len, inside))
        if loss:
            level = logging.WARNING if loss == count else logging.DEBUG
            logger.log(level, "dropped %d of %d fixations outside the image (x or y not in 0..1)", loss, count)
        return inside


def _checked_size(size: Sequence[int], name: str) -> tuple[int, int]:
    values = tuple(int(value) for value in size)
    if len(values) != 2 or min(values) < 1:
        raise ValueError(f"{name} is {tuple(size)}: expected (height, width), both at least 1")
    return values[0], values[1]


def _gaussian(centres_px: torch.Tensor, sigma_px: float, length: int) -> torch.Tensor:
    """Return the Gaussians (n, length) of height 1 around centres (n,), at the pixel centres of one axis."""
    offsets = torch.arange(length, dtype=torch.float64)[None] - centres_px[:, None]
    return torch.exp(-0.5 * (offsets / sigma_px) ** 2)


class GazeToAttentionMapd(MapTransform):
    """Add the attention map (1, H, W) of an item's fixations; the dict form of `GazeToAttentionMap`.

    H and W are those of the image under `ref_key`, channel first, (C, H, W): read images with height before width
    (MONAI's PILReader does so with reverse_indexing=False). Use it before any transform that moves pixels, since
    fixations do not move with them; afterwards crop, flip and resize image and map together. Where the image is a
    MetaTensor the map is one too, with a copy of its meta data and affine.

    Args:
        keys: the fixations, one entry or several.
        ref_key: the image that gives the size.
        attention_key: where the map goes, one for each entry of `keys`.
        sigma_px, sigma_deg, viewing_distance_mm, px_per_mm, reference_size: see `GazeToAttentionMap`.
        reference_size_key: entry of the item with its own (height, width) that sigma refers to, such as the original
            size of each image; goes before `reference_size`. Of an item without it sigma is in pixels of its image, if
            `reference_size` says nothing else, and the first such item is logged as a warning.
        allow_missing_keys: leave the map out where an item has no fixations or None.

    Raises:
        KeyError: fixations or image are missing in an item.
        ValueError: fixations that are None or bad, or an image that is not (C, H, W).
    """

    def __init__(
        self,
        keys: KeysCollection = "fixations",
        ref_key: str = "image",
        attention_key: str | Sequence[str] = "attention",
        *,
        sigma_px: float | None = None,
        sigma_deg: float | None = None,
        viewing_distance_mm: float | None = None,
        px_per_mm: float | None = None,
        reference_size: Sequence[int] | None = None,
        reference_size_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.ref_key = ref_key
        self.attention_keys = ensure_tuple_rep(attention_key, len(self.keys))
        if len(set(self.attention_keys)) != len(self.keys):
            raise ValueError(f"attention_key {attention_key!r} must name a place of its own for each of {self.keys}")
        self.reference_size_key = reference_size_key
        self._has_warned = False
        self.attention_map = GazeToAttentionMap(
            sigma_px,
            sigma_deg=sigma_deg,
            viewing_distance_mm=viewing_distance_mm,
            px_per_mm=px_per_mm,
            reference_size=reference_size,
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a shallow copy of an item with the attention map added."""
        item = dict(data)
        for key, attention_key in self.key_iterator(item, self.attention_keys):
            if item[key] is None:
                if self.allow_missing_keys:
                    continue
                raise ValueError(f"{key!r} is None; set allow_missing_keys to leave the attention map out")
            image = self._reference_image(item)
            attention = self.attention_map(item[key], image.shape[1:], self._reference_size(item))
            item[attention_key] = _placed_like(attention, image)
        return item

    def _reference_size(self, item: Mapping[Hashable, Any]) -> Sequence[int] | None:
        if self.reference_size_key is None:
            return None
        size = item.get(self.reference_size_key)
        if size is None and self.attention_map.reference_size is None and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%s: no %s in the datalist: fixations are %g px wide in pixels of this file, too wide where it "
                "is a smaller copy (said once for all such images).",
                getattr(item[self.ref_key], "meta", {}).get("filename_or_obj", "an image"),
                self.reference_size_key,
                self.attention_map.sigma_px,
            )
        return size

    def _reference_image(self, item: Mapping[Hashable, Any]) -> Any:
        if self.ref_key not in item:
            raise KeyError(f"{self.ref_key!r}, the image that gives the size of the attention map, is not in the item")
        image = item[self.ref_key]
        if not hasattr(image, "shape") or len(image.shape) != 3:
            shape = tuple(image.shape) if hasattr(image, "shape") else type(image).__name__
            raise ValueError(f"{self.ref_key!r} must be a channel-first image (C, H, W), not {shape}")
        return image


def _placed_like(attention: torch.Tensor, image: Any) -> torch.Tensor:
    if isinstance(image, torch.Tensor):
        attention = attention.to(image.device)
    if isinstance(image, MetaTensor):
        return MetaTensor(attention, meta=copy.deepcopy(image.meta))  # the affine is in the meta data
    return attention
