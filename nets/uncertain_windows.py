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


def shrink(image: torch.Tensor, factor: int) -> torch.Tensor:
    """Return the means over areas of an image (B, C, *S): sides ``factor`` times shorter, of one pixel or more.

    Areas of one size are pooled: interpolation takes as long on a CPU, and leaves most of a GPU idle.
    """
    size: list[int] = []
    divides = True
    for side in image.shape[2:]:
        size.append(max(1, side // factor))
        divides = divides and side % factor == 0
    if not divides:
        return F.interpolate(image, size=size, mode="area")
    return F.avg_pool2d(image, factor) if image.dim() == 4 else F.avg_pool3d(image, factor)


def window_means(values: torch.Tensor, patch: list[int], stride: list[int]) -> torch.Tensor:
    """Return the means (B, windows) of a map (B, 1, *S) over every window; the windows end where the map does.

    Axis by axis, over the blocks that windows share: pooling with a kernel as large as a window is one thread a window
    on a GPU.
    """
    kernel = [1] * len(patch)
    step = [1] * len(patch)
    for k in range(len(patch) - 1, -1, -1):
        block = math.gcd(patch[k], stride[k])
        values = values.unflatten(2 + k, [values.shape[2 + k] // block, block]).mean(3 + k)
        kernel[k] = patch[k] // block
        step[k] = stride[k] // block
    if max(kernel) > 1:
        values = F.avg_pool2d(values, kernel, step) if len(patch) == 2 else F.avg_pool3d(values, kernel, step)
    return values.flatten(1)


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


def _channels_last(image: torch.Tensor) -> bool:
    """Say whether an image lies in memory with its channels last, and not in the order of its axes."""
    layout = torch.channels_last if image.dim() == 4 else torch.channels_last_3d
    return image.is_contiguous(memory_format=layout) and not image.is_contiguous()


def _run_numbers(image: torch.Tensor, numbers: torch.Tensor, patch: list[int], stride: list[int]) -> torch.Tensor:
    """Return the numbers of the runs, see :func:`gather_windows`, that the windows (K,) of an image are made of."""
    unit = [1] * len(patch)
    unit[-1] = math.gcd(patch[-1], stride[-1])
    shape = [image.shape[0], 1 if _channels_last(image) else image.shape[1]]
    for k in range(len(patch)):
        shape.append(image.shape[2 + k] // unit[k])
    total = 1
    for side in shape:
        total *= side
    grid = torch.arange(total, device=image.device).view(shape)
    corners, inside = grid[:, 0], grid[0]
    for k in range(len(patch)):
        corners = corners.unfold(1 + k, patch[k] // unit[k], stride[k] // unit[k]).select(-1, 0)
        inside = inside.narrow(1 + k, 0, patch[k] // unit[k])
    return (corners.flatten().index_select(0, numbers)[:, None] + inside.flatten()).flatten()


def _as_runs(image: torch.Tensor, channels_last: bool, patch: list[int], stride: list[int]) -> torch.Tensor:
    """See images (N, C, *S) as runs (R, pixels of a run): a view where they lie in memory like that, else a copy."""
    run = math.gcd(patch[-1], stride[-1])
    if channels_last:
        return image.movedim(1, -1).reshape(-1, run * image.shape[1])
    return image.reshape(-1, run)


def gather_windows(image: torch.Tensor, numbers: torch.Tensor, patch: list[int], stride: list[int]) -> torch.Tensor:
    """Cut the windows (K, C, *patch) with the numbers (K,) out of images (B, C, *S), in their memory format.

    What is copied is runs: neighbours within a line that no window parts, with their channels where these are last in
    memory. One index a run costs a small part of one a pixel, and the host never waits to know the numbers.
    """
    last = _channels_last(image)
    rows = _run_numbers(image, numbers, patch, stride)
    windows = _as_runs(image, last, patch, stride).index_select(0, rows)
    shape = [numbers.shape[0], image.shape[1]]
    if last:
        return windows.view(shape[:1] + patch + shape[1:]).movedim(-1, 1)
    return windows.view(shape + patch)


def _target_runs(target: torch.Tensor, patch: list[int], stride: list[int]) -> torch.Tensor:
    last = _channels_last(target)
    if not (last or target.is_contiguous()):
        raise ValueError(f"target of strides {target.stride()}: expected a contiguous or channels-last tensor.")
    return _as_runs(target, last, patch, stride)


def paste_windows(target: torch.Tensor, windows: torch.Tensor, numbers: torch.Tensor, patch: list[int]) -> None:
    """Write windows (K, O, *patch) that do not overlap into ``target`` (B, O, *S), in place."""
    rows = _run_numbers(target, numbers, patch, patch)
    runs = _as_runs(windows, _channels_last(target), patch, patch)
    _target_runs(target, patch, patch).index_copy_(0, rows, runs)


def add_windows(
    target: torch.Tensor, windows: torch.Tensor, numbers: torch.Tensor, patch: list[int], stride: list[int]
) -> None:
    """Add windows (K, O, *patch) that may overlap to ``target`` (B, O, *S), in place."""
    rows = _run_numbers(target, numbers, patch, stride)
    runs = _as_runs(windows, _channels_last(target), patch, stride)
    _target_runs(target, patch, stride).index_add_(0, rows, runs)


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
