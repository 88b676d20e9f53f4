"""Instances in large images: tile by tile, each cell counted once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ..inferers import PlainTensorInferer
from .instances import label_map, paste_masks

EDGE = 1.5  # px, how far off a box may be: one that ends so near to a seam is taken for cut by it
SAME = 0.5  # least share of the smaller one that two detections of a cell have in common


@dataclass
class Part:
    """What one tile, or several together, know of a cell, in px of the image.

    Args:
        box: x1, y1, x2, y2.
        score: the highest of its detections.
        mask: probabilities (S, S) over the box.
        pixels: bool (h, w), and row and column of their first.
        top: row of the first pixel.
        left: column of the first pixel.
        tiles: numbers of the tiles.
        cut: whether a seam cuts it, and no tile sees it whole.
    """

    box: np.ndarray
    score: float
    mask: torch.Tensor
    pixels: np.ndarray
    top: int
    left: int
    tiles: frozenset[int]
    cut: bool


class TiledInstanceInferer(PlainTensorInferer):
    """Find instances in an image of any size by overlapping tiles, one after the other.

    An image no larger than a tile goes through the network as it is. Of a larger one, a cell is taken from the tile
    that sees it whole and farthest from its seams, a cell that two tiles see is counted once, and one that is longer
    than the overlap, so that no tile sees it whole, is joined from its parts. The result is the label map of the whole
    image, and ``network.detections`` are those of the whole image.

    Args:
        tile_size: side of a tile in px.
        overlap: px that neighbours have in common; more than the longest cell saves joining.
        precision: of :class:`..inferers.PrecisionInferer`.

    Raises:
        ValueError: no overlap, or tiles that are not larger than twice as much; in a call, a network that scales its
            images, which it would do to each tile.
    """

    def __init__(self, tile_size: int = 1024, overlap: int = 192, precision: str = "float32") -> None:
        super().__init__(precision)
        if not 0 < 2 * overlap < tile_size:
            raise ValueError(
                f"tile_size is {tile_size} and overlap {overlap}: tiles overlap, and are larger than two overlaps."
            )
        self.tile_size = tile_size
        self.overlap = overlap

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run ``network`` on images (B, 3, H, W) and return their label maps int32 (B, 1, H, W)."""
        height, width = inputs.shape[-2:]
        if max(height, width) <= self.tile_size or not hasattr(network, "detections"):
            return super().__call__(inputs, network, *args, **kwargs)
        if getattr(network, "min_size", None) is not None:
            raise ValueError(
                f"an image of {width}x{height} px goes by tiles of {self.tile_size} px, and image_size would scale "
                "each of them by itself: leave image_size out, or take a larger tile_size."
            )
        places = [(y, x) for y in self._starts(height) for x in self._starts(width)]
        found: list[list[Part]] = [[] for _ in inputs]
        for number, (y, x) in enumerate(places):
            tile = inputs[..., y : y + self.tile_size, x : x + self.tile_size]
            super().__call__(tile, network, *args, **kwargs)
            for parts, detection in zip(found, network.detections, strict=True):
                parts += self._parts(detection, number, (y, x), tile.shape[-2:], (height, width))
        merged = [as_detection(merge(parts)) for parts in found]
        network.detections = merged
        threshold = network.label_score_threshold
        maps = [label_map(detection, (height, width), score_threshold=threshold) for detection in merged]
        return torch.stack(maps)[:, None].to(inputs.device)

    def _starts(self, length: int) -> list[int]:
        """Give the starts of the tiles along a side; the last ends where the image does."""
        last = max(length - self.tile_size, 0)
        return [*range(0, last, self.tile_size - self.overlap), last]

    def _parts(
        self,
        detection: Mapping[str, torch.Tensor],
        number: int,
        start: tuple[int, int],
        size: Sequence[int],
        image: tuple[int, int],
    ) -> Iterator[Part]:
        """Bring the detections of a tile to the image, without those that a neighbour sees whole and farther inside.

        Near a seam a network knows less, and a cell that it finds there in another shape would be a second one.
        """
        pasted = paste_masks(detection, (size[0], size[1]))
        rows = zip(detection["boxes"].double().numpy(), detection["scores"].tolist(), detection["masks"], strict=True)
        for (box, score, mask), (pixels, top, left) in zip(rows, pasted, strict=True):
            cut = False
            elsewhere = False
            for low, high, side, at, full in (
                (box[0], box[2], size[1], start[1], image[1]),
                (box[1], box[3], size[0], start[0], image[0]),
            ):
                # Distances of the box from a seam, at the start and at the end of the tile.
                for has_neighbour, near, far in ((at > 0, low, high), (at + side < full, side - high, side - low)):
                    is_cut = has_neighbour and near < EDGE
                    cut |= is_cut
                    if has_neighbour and far < self.overlap - EDGE:  # the neighbour sees it whole
                        elsewhere |= is_cut or (near + far) / 2 < self.overlap / 2 - EDGE
            if not elsewhere and pixels.any():
                y, x = start
                moved = box + np.array([x, y, x, y])
                yield Part(moved, score, mask, pixels, top + y, left + x, frozenset([number]), cut)


def merge(parts: Sequence[Part]) -> list[Part]:
    """Join the parts of cells that no tile sees whole, and drop what several tiles see but once.

    Returns:
        one part for each cell, by falling score.
    """
    ordered = sorted(parts, key=lambda part: -part.score)
    kept: list[Part | None] = []
    boxes = np.zeros((len(ordered), 4))
    for part in ordered:
        before = boxes[: len(kept)]
        near = np.all((before[:, :2] < part.box[2:]) & (before[:, 2:] > part.box[:2]), axis=1)
        # Each part that it meets may be one more of the same cell, as in a cell across three tiles.
        for place in np.flatnonzero(near):
            other = kept[place]
            if other is not None and _are_one(part, other):
                kept[place] = None
                part = _union(part, other) if part.cut and other.cut else max(part, other, key=_trust)
        boxes[len(kept)] = part.box
        kept.append(part)
    return sorted((part for part in kept if part is not None), key=lambda part: -part.score)


def _trust(part: Part) -> tuple[bool, float]:
    """Prefer a cell that a tile sees whole to a part of it, and then the higher score."""
    return not part.cut, part.score


def _are_one(part: Part, other: Part) -> bool:
    """Tell whether two tiles saw the same cell: by what both saw of it."""
    if part.tiles & other.tiles:
        return False
    low = np.maximum(part.box[:2], other.box[:2])
    high = np.minimum(part.box[2:], other.box[2:])
    if (high <= low).any():
        return False
    first, second = (_within(one, low, high) for one in (part, other))
    smaller = min(first.sum(), second.sum())
    if part.cut and other.cut:
        return smaller > 0 and (first & second).sum() >= SAME * smaller
    return (first & second).sum() >= SAME * min(part.pixels.sum(), other.pixels.sum())


def _within(part: Part, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Give the pixels of a part in a box, bool (h, w)."""
    (left, top), (right, bottom) = np.floor(low).astype(int), np.ceil(high).astype(int)
    return _drawn([part], top, left, (bottom - top, right - left))


def _drawn(parts: Sequence[Part], top: int, left: int, size: tuple[int, int]) -> np.ndarray:
    """Draw parts on a canvas bool (h, w) whose first pixel is at ``top`` and ``left``; what lies beyond is cut."""
    canvas = np.zeros(size, dtype=bool)
    for part in parts:
        y, x = part.top - top, part.left - left
        height, width = part.pixels.shape
        rows = slice(max(y, 0), min(y + height, size[0]))
        columns = slice(max(x, 0), min(x + width, size[1]))
        if rows.start < rows.stop and columns.start < columns.stop:
            canvas[rows, columns] |= part.pixels[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
    return canvas


def _union(part: Part, other: Part) -> Part:
    """Join two parts; the mask is read anew from the pixels of both, over the box around both."""
    box = np.concatenate([np.minimum(part.box[:2], other.box[:2]), np.maximum(part.box[2:], other.box[2:])])
    left, top = np.floor(box[:2]).astype(int)
    right, bottom = np.ceil(box[2:]).astype(int)
    pixels = _drawn([part, other], top, left, (bottom - top, right - left))
    box = np.array([left, top, right, bottom], dtype=float)
    values = torch.from_numpy(pixels).to(part.mask)[None, None]
    mask = F.interpolate(values, part.mask.shape, mode="area")[0, 0]
    return Part(box, max(part.score, other.score), mask, pixels, top, left, part.tiles | other.tiles, True)


def as_detection(parts: Sequence[Part]) -> dict[str, torch.Tensor]:
    """Give parts as the detections of an image: boxes (K, 4), scores (K,) and masks (K, S, S)."""
    if not parts:
        return {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "masks": torch.zeros(0, 28, 28)}
    boxes = torch.from_numpy(np.stack([part.box for part in parts])).float()
    scores = torch.tensor([part.score for part in parts])
    return {"boxes": boxes, "scores": scores, "masks": torch.stack([part.mask for part in parts])}
