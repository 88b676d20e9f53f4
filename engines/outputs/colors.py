"""The colours of results, of classes, cells and outcomes, in overlays, legends, DICOM and answers of servers alike."""

from __future__ import annotations

from functools import cache

import numpy as np

RGB = tuple[int, int, int]

# Colours that stay apart for the colour-blind (Okabe and Ito, Color universal design, 2008).
BLUE, ORANGE, GREEN, PURPLE = (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167)
SKY, VERMILION, YELLOW = (86, 180, 233), (213, 94, 0), (240, 228, 66)
CELLS: tuple[RGB, ...] = (ORANGE, SKY, GREEN, YELLOW, VERMILION, PURPLE)
OUTCOMES: dict[str, RGB] = {"hit": GREEN, "miss": ORANGE, "false alarm": SKY}
PREDICTION: RGB = (0, 255, 255)  # of a mask, which has no classes
WRONG: RGB = (255, 0, 0)
CLASSES: tuple[RGB, ...] = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, YELLOW)

# What further colours are chosen of, and how far from grey, as images are, and from black they lie.
LEVELS = np.arange(0, 256, 17)
LEAST_CHROMA, LEAST_LIGHTNESS = 30, 30
# Linear RGB as seen without the cones for red, and without those for green (Machado et al., A physiologically-based
# model for simulation of color vision deficiency, 2009, severity 1).
PROTANOPIA = ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998))
DEUTERANOPIA = ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881))
SIGHTS = np.array([np.eye(3), PROTANOPIA, DEUTERANOPIA])
# Normal sight tells more colours apart than the other two: so weighed, the three have about the same say.
WEIGHTS = np.array([0.7, 1, 1])


@cache
def class_colors(count: int) -> tuple[RGB, ...]:
    """Give colours that differ, for class 1 and on: seven of Okabe and Ito, then always the one farthest from all.

    How far two are apart is their distance in CIELAB, in the eyes of people with normal sight (times 0.7) and of
    those who lack the cones for red or for green; the nearest of the three decides.

    Args:
        count: number of classes without the background, at most some thousands.
    """
    if count <= len(CLASSES):
        return CLASSES[:count]
    colors = np.stack(np.meshgrid(LEVELS, LEVELS, LEVELS, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = cielab(colors)
    keep = (np.linalg.norm(lab[0, :, 1:], axis=-1) >= LEAST_CHROMA) & (lab[0, :, 0] >= LEAST_LIGHTNESS)
    colors, lab = colors[keep], lab[:, keep]
    apart = np.full(len(colors), np.inf)
    chosen = list(CLASSES)
    for color in (*CLASSES, WRONG):
        apart = np.minimum(apart, _distances(lab, color))
    while len(chosen) < count:
        red, green, blue = colors[np.argmax(apart.round(6))].tolist()  # rounded, to be the same on all machines
        chosen.append((red, green, blue))
        apart = np.minimum(apart, _distances(lab, chosen[-1]))
    return tuple(chosen)


def cielab(colors: np.ndarray) -> np.ndarray:
    """Convert sRGB (N, 3), 0 to 255, to CIELAB (sight, N, 3) as normal, red-blind and green-blind people see it."""
    share = np.asarray(colors) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = np.einsum("sij,nj->sni", SIGHTS, linear).clip(0, 1)
    to_xyz = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
    ratios = seen @ (to_xyz / to_xyz.sum(axis=1, keepdims=True)).T
    x, y, z = np.moveaxis(np.where(ratios > 0.008856, np.cbrt(ratios), 7.787 * ratios + 16 / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _distances(lab: np.ndarray, color: RGB) -> np.ndarray:
    """Give how far colours (sight, N, 3) are apart from one."""
    return (np.linalg.norm(lab - cielab(np.array([color])), axis=-1) * WEIGHTS[:, None]).min(axis=0)
