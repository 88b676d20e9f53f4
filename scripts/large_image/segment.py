"""A large image segmented window by window, in bounded memory, into an OME-NGFF mask; a killed run goes on."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from clinbundles.scripts.bars import watch

from .image import LargeImage
from .memory import LARGEST_WINDOW, READS_AT_ONCE, MemoryBound, Predict
from .store import SMALLEST_CHUNK, MaskStore, Window, earlier_settings, windows_of

_WHOLE_STEP = 256  # px, a side that networks take


def segment_large_image(
    image: LargeImage,
    output: str | os.PathLike,
    predict: Predict,
    *,
    window: int | None = None,
    overlap: int = 128,
    max_memory_gb: float = 4.0,
    device: torch.device | str = "cpu",
    threshold: float = 0.5,
    intensity_range: tuple[float, float] | None = None,
    skip_blank: bool = False,
    keep_probability: bool = False,
    settings: Mapping[str, Any] | None = None,
    restart: bool = False,
) -> Path:
    """Segment an image (C, H, W) on disk into an OME-NGFF 0.5 folder: its mask (H, W) of 0 and 1, uint8, as a pyramid.

    Windows are read with a margin of ``overlap`` pixels that is cut off after prediction: a network that sees no
    farther than that gives the same mask as on the whole image. Others depend on the window: those with instance
    normalisation or attention, a two-stage network that refines so many patches of each, and, a little, those with
    strides where a window does not begin at a multiple of them (the last row and column). An image smaller than a
    window is continued by reflection; one that fits into a window is one window, without a margin.

    Args:
        image: from ``open_large_image``.
        output: the folder, new or of an unfinished run, which is then continued.
        predict: (1, C, window, window) in [0, 1], on the CPU, to logits (1, 1, window, window).
        window: side of the windows in pixels; if None, that of the unfinished run, or the largest up to 4096 that the
            bound allows.
        overlap: margin in pixels; window - 2 * overlap must be a multiple of 64.
        max_memory_gb: what this process, and the GPU, may hold at most, in 10^9 bytes; see ``MemoryBound``.
        device: where ``predict`` runs, for the measurement.
        threshold: the mask is 1 where the probability is at least this.
        intensity_range: values that become 0 and 1; 0 and 255 for uint8, needed for any other type.
        skip_blank: leave windows of one constant colour background without predicting.
        keep_probability: also write the probability, times 255 and rounded, as a pyramid in "probability".
        settings: whatever else decides the result (weights, knobs), to be the same when a run goes on.
        restart: remove an earlier result, and nothing else.

    Returns:
        The folder.

    Raises:
        ValueError: a value out of its range, an image that cannot be read in pieces, a window that does not fit, an
            unfinished run with other settings, NaN or infinite pixels or logits.
        FileExistsError: the output is something else.
        MemoryError: the bound was passed all the same.
    """
    output = Path(output)
    if not 0 < threshold < 1:
        raise ValueError(f"threshold is {threshold}, expected a probability between 0 and 1.")
    low, high = check_intensity_range(image, intensity_range)
    found = earlier_settings(output)  # what is no result of this command is not restarted either
    earlier = None if restart else found
    if window is None and earlier is not None:
        window = earlier[0]["window"]
        # Of one window that holds the whole image no margin is cut off.
        overlap = 0 if earlier[0]["overlap"] == 0 and window >= max(image.shape[1:]) else overlap
    with zarr.config.set({"async.concurrency": READS_AT_ONCE}):
        bound = MemoryBound(max_memory_gb, device=torch.device(device))
        if window is None or earlier is None or not earlier[1]:
            window, overlap = _window_and_overlap(image, predict, bound, window=window, overlap=overlap)
        own_settings = {
            "image": image.fingerprint,
            "window": window,
            "overlap": overlap,
            "threshold": threshold,
            "intensity_range": [low, high],
            "skip_blank": skip_blank,
            "keep_probability": keep_probability,
        }
        store = MaskStore(output, image.shape[1:], own_settings | dict(settings or {}), restart=restart)
        if store.complete:
            logging.getLogger(__name__).info("%s is complete already.", output)
            return output
        windows = list(windows_of(image.shape[1:], window=window, overlap=overlap))
        left = [each for each in windows if (each.row, each.column) not in store.done]
        size = {"height": min(window, image.shape[1]), "width": min(window, image.shape[2])}
        for each in watch(left, desc="segmenting", unit="window", done=len(windows) - len(left)):
            region = image.read(each.y, each.x, **size)
            _refuse_not_finite(region, each, name=image.name)
            if skip_blank and (region == region[:, :1, :1]).all():
                store.write(None, each)
            else:
                pixels = torch.from_numpy(region.astype(np.float32)).sub_(low).div_(high - low).clamp_(0, 1)
                store.write(_probability(pixels, predict, each, side=window, name=image.name), each)
            bound.check()
        store.finish(pixel_size_um=image.pixel_size_um, origin_um=image.origin_um)
    return output


def _window_and_overlap(
    image: LargeImage, predict: Predict, bound: MemoryBound, *, window: int | None, overlap: int
) -> tuple[int, int]:
    """Choose a window: one that just holds the whole image, without a margin, where that fits and nothing is given."""
    whole = _WHOLE_STEP * math.ceil(max(image.shape[1:]) / _WHOLE_STEP)
    if window is None and bound.enforced and whole <= LARGEST_WINDOW:
        with suppress(ValueError):  # too large for the bound, or a side that the network does not take
            return bound.window_for(image, predict, window=whole, overlap=0), 0
    side = bound.window_for(image, predict, window=window, overlap=overlap)
    is_one = window is None and side >= max(image.shape[1:]) and side % SMALLEST_CHUNK == 0
    return side, 0 if is_one else overlap


def check_intensity_range(image: LargeImage, given: tuple[float, float] | None) -> tuple[float, float]:
    """Return the values of an image that become 0 and 1.

    Raises:
        ValueError: they are no range, or have to be given.
    """
    if image.dtype.kind not in "uif":
        raise ValueError(f"{image.name}: pixels are {image.dtype}, expected whole or real numbers.")
    if given is None:
        if image.dtype != np.uint8:
            raise ValueError(
                f"{image.name}: pixels are {image.dtype}: pass --intensity_range low,high, which become 0 and 1."
            )
        return 0.0, 255.0
    if len(given) != 2 or not given[0] < given[1]:
        raise ValueError(f"intensity_range is {given}, expected two numbers, the lower one first.")
    return float(given[0]), float(given[1])


def _refuse_not_finite(region: np.ndarray, place: Window, *, name: str) -> None:
    """Refuse a region (C, h, w) with NaN or infinite values, and say where they lie in the image."""
    if region.dtype.kind != "f" or np.isfinite(region).all():
        return
    rows, columns = np.nonzero(~np.isfinite(region).all(axis=0))
    y, x = place.y, place.x
    raise ValueError(
        f"{name}: pixels are NaN or infinite in rows {y + rows.min()} to {y + rows.max() + 1}, columns "
        f"{x + columns.min()} to {x + columns.max() + 1}, of the window of rows {y} to {y + region.shape[1]}, columns "
        f"{x} to {x + region.shape[2]}: replace them by the value of the background."
    )


def _probability(pixels: torch.Tensor, predict: Predict, place: Window, *, side: int, name: str) -> np.ndarray:
    """Predict a region (C, h, w) in [0, 1] and give the probability of the part to keep, float32."""
    missing = [(0, 0), (0, side - pixels.shape[1]), (0, side - pixels.shape[2])]
    if any(after for _, after in missing):  # torch's reflection cannot exceed the image, numpy's can
        pixels = torch.from_numpy(np.pad(pixels.numpy(), missing, mode="reflect"))
    with torch.inference_mode():
        logits = predict(pixels[None])
        if logits.shape != (1, 1, side, side):
            raise ValueError(
                f"the network gives {tuple(logits.shape)} for a window of {side} px, expected one channel."
            )
        at_y, at_x = slice(*(v - place.y for v in place.kept_y)), slice(*(v - place.x for v in place.kept_x))
        kept = logits[0, 0, at_y, at_x].float()
        if not torch.isfinite(kept).all():
            raise ValueError(
                f"{name}: the network's logits are NaN or infinite in rows {place.kept_y[0]} to {place.kept_y[1]}, "
                f"columns {place.kept_x[0]} to {place.kept_x[1]}."
            )
        return np.asarray(torch.sigmoid(kept).cpu())
