"""Instances from their boxes and small masks: pixels within the box, and a label map.

A detection keeps a mask of 28 x 28 probabilities for each box, and one at a time becomes pixels, so that thousands of
cells never fill a dense stack.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch


def paste_mask(mask: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, int, int]:
    """Read a mask bilinearly at the middles of the image's pixels that lie in its box.

    This is where the point loss reads it too. torchvision's ``paste_masks_in_image`` rounds the box to whole pixels
    first, which costs small cells up to a pixel on each side.

    Args:
        mask: (S, S), spread over the box; beyond it stand zeros.
        box: x1, y1, x2, y2 in px.
        size: height and width of the image in px.

    Returns:
        Values (h, w), and the row and the column in the image of the first.
    """
    left, top = (max(int(np.ceil(low - 0.5)), 0) for low in box[:2])
    right, bottom = (min(int(np.floor(high - 0.5)) + 1, side) for high, side in zip(box[2:], size[::-1], strict=True))
    columns = _weights(np.arange(left, right), box[0], box[2], mask.shape[1])
    rows = _weights(np.arange(top, bottom), box[1], box[3], mask.shape[0])
    return rows @ mask @ columns.T, top, left


def _weights(pixels: np.ndarray, low: float, high: float, count: int) -> np.ndarray:
    """Return the bilinear weights (pixels, count) of a row of cells between ``low`` and ``high`` at pixels' middles."""
    positions = (pixels + 0.5 - low) / (high - low) * count - 0.5
    return np.maximum(1 - np.abs(positions[:, None] - np.arange(count)), 0).astype(np.float32)


def paste_masks(
    detection: Mapping[str, torch.Tensor], size: tuple[int, int], *, threshold: float = 0.5
) -> Iterator[tuple[np.ndarray, int, int]]:
    """Give the pixels of one instance after the other, bool (h, w), and the row and column of the first.

    Args:
        detection: ``boxes`` (K, 4) and ``masks`` (K, S, S) of an image.
        size: height and width of the image in px.
        threshold: least probability of a pixel of the instance.
    """
    boxes = detection["boxes"].detach().cpu().double().numpy()
    masks = detection["masks"].detach().cpu().float().numpy()
    for box, mask in zip(boxes, masks, strict=True):
        values, top, left = paste_mask(mask, box, size)
        yield values >= threshold, top, left


def label_map(detection: Mapping[str, torch.Tensor], size: tuple[int, int], *, score_threshold: float) -> torch.Tensor:
    """Return the map int32 (H, W) of an image: 0 background, 1 for the pixels of the highest score, and so on.

    Number n is row n - 1 of the detection. An overlap goes to the higher score. An instance of which less than half is
    then left is another find of the same cell as a rule; it is left out, and so is its number.

    Args:
        detection: ``boxes`` (K, 4), ``scores`` (K,), falling, and ``masks`` (K, S, S) of an image.
        size: height and width of the image in px.
        score_threshold: instances below this score are left out.
    """
    count = int((detection["scores"] >= score_threshold).sum())
    labels = np.zeros(size, dtype=np.int32)
    shown = {name: values[:count] for name, values in detection.items()}
    for number, (pixels, top, left) in enumerate(paste_masks(shown, size), start=1):
        place = labels[top : top + pixels.shape[0], left : left + pixels.shape[1]]
        free = pixels & (place == 0)
        if 2 * free.sum() >= pixels.sum():
            place[free] = number
    return torch.from_numpy(labels)


def label_map_by_torch(
    boxes: torch.Tensor, scores: torch.Tensor, masks: torch.Tensor, height: int, width: int, score_threshold: float
) -> torch.Tensor:
    """Return what :func:`label_map` returns, by what TorchScript knows; where there are many cells it is slower.

    Args:
        boxes, scores, masks: of a detection, on the CPU.
        height, width: of the image in px.
        score_threshold: instances below this score are left out.
    """
    labels = torch.zeros((height, width), dtype=torch.int32)
    for number in range(int((scores >= score_threshold).sum())):
        left, top, right, bottom = [float(side) for side in boxes[number].double().unbind()]
        first_column, columns = _weights_by_torch(left, right, width, masks.shape[2])
        first_row, rows = _weights_by_torch(top, bottom, height, masks.shape[1])
        pixels = rows @ masks[number].float() @ columns.T >= 0.5
        place = labels[first_row : first_row + pixels.shape[0], first_column : first_column + pixels.shape[1]]
        free = pixels & (place == 0)
        if 2 * int(free.sum()) >= int(pixels.sum()):
            place.masked_fill_(free, number + 1)
    return labels


def _weights_by_torch(low: float, high: float, side: int, count: int) -> tuple[int, torch.Tensor]:
    """Return the first pixel whose middle lies between ``low`` and ``high``, and the weights of :func:`_weights`."""
    first = max(math.ceil(low - 0.5), 0)
    last = min(math.floor(high - 0.5) + 1, side)
    pixels = torch.arange(first, max(first, last), dtype=torch.float64)
    positions = (pixels + 0.5 - low) / (high - low) * count - 0.5
    weights = 1 - (positions[:, None] - torch.arange(count, dtype=torch.float64)).abs()
    return first, weights.clamp(min=0).float()
