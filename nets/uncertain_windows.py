"""Windows of an image, scored by how unsure a first segmentation is in them, cut out, and pasted back.

Shapes: images (B, C, *S) with two or three spatial axes; windows lie on a regular grid of ``counts`` places, ``stride``
pixels apart, numbered row by row. All functions run in TorchScript and none loops over windows.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

SCORES = ("mean", "entropy", "margin", "distance", "boundary")


def pixel_uncertainty(probabilities: torch.Tensor, score: str) -> torch.Tensor:
    """Return how uncertain each pixel of a map is, (B, 1, *S).

    The map (B, O, *S) has the probability of the foreground (O = 1) or of classes that sum to one (O > 1).

    ``entropy``: of the pixel, 1 where all classes are equally likely. ``margin``: one minus the difference of the two
    likeliest classes. ``distance``: 0.5 - |p - 0.5| of the foreground, which is everything but class 0. ``boundary``:
    |differences to the next pixel| of the foreground, summed over the axes: no threshold, large along outlines.
    """
    n_classes = probabilities.shape[1]
    if score == "entropy":
        if n_classes == 1:
            probabilities = torch.cat([probabilities, 1 - probabilities], dim=1)
        return -torch.xlogy(probabilities, probabilities).sum(1, keepdim=True) / math.log(max(2, n_classes))
    foreground = probabilities if n_classes == 1 else 1 - probabilities[:, :1]
    if score == "margin":
        if n_classes == 1:
            return 1 - (2 * foreground - 1).abs()
        likeliest = probabilities.topk(2, dim=1)[0]
        return 1 - (likeliest[:, :1] - likeliest[:, 1:])
    if score == "distance":
        return 0.5 - (foreground - 0.5).abs()
    change = torch.zeros_like(foreground)
    for axis in range(2, foreground.dim()):
        length = foreground.shape[axis] - 1
        change.narrow(axis, 0, length).add_(foreground.diff(dim=axis).abs())
    return change


def window_means(values: torch.Tensor, patch: list[int], stride: list[int]) -> torch.Tensor:
    """Return the means (B, windows) of a map (B, 1, *S) over every window."""
    pooled = F.avg_pool2d(values, patch, stride) if values.dim() == 4 else F.avg_pool3d(values, patch, stride)
    return pooled.flatten(1)


def window_uncertainty(stage_1: torch.Tensor, score: str, patch: list[int], stride: list[int]) -> torch.Tensor:
    """Return the uncertainty (B, windows) of every window of a stage-1 map (B, O, *S): larger is more unsure.

    ``mean`` is the paper's 0.5 - |mean - 0.5| of the foreground; a window of confident halves scores highest there too.
    The others are means of :func:`pixel_uncertainty`.
    """
    if score == "mean":
        foreground = stage_1 if stage_1.shape[1] == 1 else 1 - stage_1[:, :1]
        return 0.5 - (window_means(foreground, patch, stride) - 0.5).abs()
    return window_means(pixel_uncertainty(stage_1, score), patch, stride)


def window_places(numbers: torch.Tensor, counts: list[int]) -> list[torch.Tensor]:
    """Turn numbers (K,) of windows of a batch into [image, place along each axis], each (K,)."""
    places: list[torch.Tensor] = []
    for count in counts[::-1]:
        places.append(numbers % count)
        numbers = torch.div(numbers, count, rounding_mode="floor")
    places.append(numbers)
    return places[::-1]


def _grid_of_windows(image: torch.Tensor, patch: list[int], stride: list[int]) -> torch.Tensor:
    """Return a view (B, *counts, C, *patch) on the windows of an image (B, C, *S)."""
    axes = len(patch)
    for k in range(axes):
        image = image.unfold(2 + k, patch[k], stride[k])
    return image.movedim(1, 1 + axes)


def gather_windows(
    image: torch.Tensor, places: list[torch.Tensor], patch: list[int], stride: list[int]
) -> torch.Tensor:
    """Cut the windows (K, C, *patch) at K places out of an image (B, C, *S)."""
    grid = _grid_of_windows(image, patch, stride)
    if len(patch) == 2:
        return grid[places[0], places[1], places[2]]
    return grid[places[0], places[1], places[2], places[3]]


def paste_windows(target: torch.Tensor, windows: torch.Tensor, places: list[torch.Tensor], patch: list[int]) -> None:
    """Write K windows (K, O, *patch) that do not overlap into ``target`` (B, O, *S), in place."""
    grid = _grid_of_windows(target, patch, patch)
    if len(patch) == 2:
        grid[places[0], places[1], places[2]] = windows
    else:
        grid[places[0], places[1], places[2], places[3]] = windows


def add_windows(
    target: torch.Tensor, windows: torch.Tensor, places: list[torch.Tensor], patch: list[int], stride: list[int]
) -> None:
    """Add K windows (K, O, *patch) that may overlap to a contiguous ``target`` (B, O, *S), in place."""
    step = 1
    pixel = torch.zeros([1] * (1 + len(patch)), dtype=torch.long, device=target.device)
    corner = torch.zeros_like(places[0])
    for k in range(len(patch) - 1, -1, -1):
        shape = [1] * (1 + len(patch))
        shape[1 + k] = patch[k]
        pixel = pixel + (torch.arange(patch[k], device=target.device) * step).view(shape)
        corner = corner + places[1 + k] * (stride[k] * step)
        step *= target.shape[2 + k]
    channel = torch.arange(target.shape[1], device=target.device) * step
    corner = corner + places[0] * (step * target.shape[1])
    first = (corner[:, None] + channel[None]).view([windows.shape[0], windows.shape[1]] + [1] * len(patch))
    target.view(-1).index_add_(0, (first + pixel[None]).view(-1), windows.reshape(-1))


def window_weights(patch: list[int], blend: str, device: torch.device) -> torch.Tensor:
    """Return weights (1, 1, *patch) for the pixels of overlapping windows: all 1, or a Gaussian of 1/8 of the side."""
    weights = torch.ones([1] * (2 + len(patch)), device=device)
    for k in range(len(patch)):
        shape = [1] * (2 + len(patch))
        shape[2 + k] = patch[k]
        offset = torch.arange(patch[k], device=device, dtype=torch.float32) - 0.5 * (patch[k] - 1)
        along = torch.exp(-0.5 * (offset / (0.125 * patch[k])) ** 2) if blend == "gaussian" else torch.ones_like(offset)
        weights = weights * along.view(shape)
    return weights.clamp(min=1e-3)
