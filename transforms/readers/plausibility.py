"""Plausibility of a grey image as an X-ray ready for display. No torch is needed here."""

from __future__ import annotations

import numpy as np

from .grey_values import count_values

# Of 2737 chest X-rays of three collections, 320 px a side, none has fewer than 68 grey values, a span below 61 levels,
# more than a third of white, or more than 0.81 of black.
FEWEST_GREYS, LEAST_SPAN = 16, 32
MOST_WHITE, MOST_BLACK = 0.5, 0.9


def plausibility(grey: np.ndarray) -> str:
    """Say why an image is probably no X-ray as on a display, in one sentence; nothing where no reason is seen.

    Wrong windows and tables, a bright spot by which the rest is stretched, and blank exposures are seen by it.

    Args:
        grey: uint8 (H, W), 0 black, 255 white.

    Raises:
        ValueError: it is no such array, or empty.
    """
    if grey.dtype != np.uint8 or grey.ndim != 2 or not grey.size:
        raise ValueError(f"expected grey values uint8 (H, W), got {grey.dtype} {grey.shape}.")
    counts = count_values(grey)
    shares = np.cumsum(counts) / grey.size
    low, high = np.searchsorted(shares, [0.01, 0.99])
    if counts[255] > MOST_WHITE * grey.size:
        return f"{counts[255] / grey.size:.0%} of its pixels are white."
    if counts[0] > MOST_BLACK * grey.size:
        return f"{counts[0] / grey.size:.0%} of its pixels are black."
    if (greys := np.count_nonzero(counts)) < FEWEST_GREYS:
        return f"It has {greys} grey values, expected {FEWEST_GREYS} or more."
    if high - low < LEAST_SPAN:
        return (
            f"Its grey values span {high - low} levels of 255 but for the darkest and the brightest hundredth, "
            f"expected {LEAST_SPAN} or more."
        )
    return ""
