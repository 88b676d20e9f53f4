"""The attention blur for CPUs, compiled by numba: one pass over the rows, without a padded copy."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch

# Below this many values a second thread costs more than it saves.
SMALL = 65536
CHUNKS_PER_THREAD = 4


def blur_rows(image: torch.Tensor, sigma: torch.Tensor, radius: int) -> torch.Tensor:
    """Blur contiguous image (N, C, H, W) by sigma (N, 1, H, W), both float32 or both float64, on the CPU.

    Runs on torch.get_num_threads() threads, so on one in a data loader's worker. The threads live for this call only:
    a pool that stays would not survive the fork of such a worker.

    Args:
        image: pixels.
        sigma: width in pixels.
        radius: half the window's side, less than both sides of the image.
    """
    out = torch.empty_like(image)
    source, widths, target = image.numpy(), sigma.numpy(), out.numpy()
    n, height = image.shape[0], image.shape[-2]
    threads = torch.get_num_threads() if image.numel() >= SMALL else 1
    chunk = height if threads == 1 else max(1, height // (threads * CHUNKS_PER_THREAD))
    tasks = [(item, top, min(top + chunk, height)) for item in range(n) for top in range(0, height, chunk)]

    def run(task: tuple[int, int, int]) -> None:
        item, top, bottom = task
        _rows(source[item], widths[item, 0], target[item], top, bottom, radius)

    if threads == 1:
        for task in tasks:
            run(task)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(run, tasks))
    return out


def _rows_in_python(image: np.ndarray, sigma: np.ndarray, out: np.ndarray, top: int, bottom: int, radius: int) -> None:
    """Fill out[:, top:bottom]; 0.01 and 40 are COPY_SIGMA and CUTOFF of the plain version.

    The tap at (dx, dy) weighs q^(dx²) q^(dy²), with q = exp(-1 / (2 sigma²)) per pixel.

    For each dy the two mirrored rows are added, extended by reflection, and weighed along x. Every inner loop runs
    along x over contiguous memory, which is what lets the compiler vectorise it.
    """
    channels, height, width = out.shape
    one = image.dtype.type(1)
    zero = image.dtype.type(0)
    tiny = image.dtype.type(1e-18)  # smaller weights become 0: their products would be denormal, and slow
    weights = np.empty((radius + 1, width), image.dtype)  # row k: q^(k²)
    norm = np.empty(width, image.dtype)
    pair = np.empty(width + 2 * radius, image.dtype)
    middle = pair[radius : radius + width]
    total = np.empty(width, image.dtype)
    base = weights[1] if radius else total
    for y in range(top, bottom):
        widths = sigma[y]
        widest = zero
        for x in range(width):
            s = widths[x]
            widest = max(widest, s)
            base[x] = math.exp(-one / (s * s + s * s)) if s > 0.01 else zero
        reach2 = 40.0 * widest * widest
        reach = 0
        while reach < radius and (reach + 1) * (reach + 1) <= reach2:
            reach += 1

        for x in range(width):
            norm[x] = one
        if reach:
            for x in range(width):
                norm[x] += 2 * base[x]
                total[x] = base[x]
        for k in range(2, reach + 1):  # q^(k²) = q^((k-1)²) q^(2k-1)
            previous = weights[k - 1]
            current = weights[k]
            for x in range(width):
                step = total[x] * base[x] * base[x]
                step = step if step > tiny else zero
                total[x] = step
                weight = previous[x] * step
                weight = weight if weight > tiny else zero
                current[x] = weight
                norm[x] += 2 * weight
        for x in range(width):
            norm[x] = one / (norm[x] * norm[x])

        for c in range(channels):
            target = out[c, y]
            for dy in range(reach + 1):
                above = image[c, abs(y - dy)]
                below = image[c, y + dy if y + dy < height else 2 * (height - 1) - y - dy]
                if dy:
                    for x in range(width):
                        middle[x] = above[x] + below[x]
                else:
                    for x in range(width):
                        middle[x] = above[x]
                for i in range(1, radius + 1):
                    pair[radius - i] = pair[radius + i]
                    pair[radius + width - 1 + i] = pair[radius + width - 1 - i]
                for x in range(width):
                    total[x] = middle[x]
                for dx in range(1, reach + 1):
                    if dx * dx + dy * dy > reach2:
                        break
                    weight_x = weights[dx]
                    left = pair[radius - dx : radius - dx + width]
                    right = pair[radius + dx : radius + dx + width]
                    for x in range(width):
                        total[x] += weight_x[x] * (left[x] + right[x])
                if dy:
                    weight_y = weights[dy]
                    for x in range(width):
                        target[x] += weight_y[x] * total[x]
                else:
                    for x in range(width):
                        target[x] = total[x]
            centre = image[c, y]
            for x in range(width):
                target[x] = target[x] * norm[x] if widths[x] > 0.01 else centre[x]


def _compiled(cache: bool) -> Callable[..., None]:
    # Only multiply-add contraction: NaN and infinite pixels keep their meaning.
    return numba.njit(nogil=True, cache=cache, fastmath={"contract"}, error_model="numpy")(_rows_in_python)


try:
    _rows = _compiled(cache=True)  # on disk, which spares every worker the compiler
except RuntimeError:  # numba found no folder that it may write to
    _rows = _compiled(cache=False)
