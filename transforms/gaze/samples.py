"""Gaze samples of one observer on one display, and the way from the display to the image that was shown on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Display:
    """The active area of a screen: its size in pixels and in millimetres, origin at the top left.

    Args:
        size_px: width and height in pixels.
        size_mm: width and height in millimetres; pixels need not be square.

    Raises:
        ValueError: a size is not two positive finite numbers.
    """

    size_px: tuple[float, float]
    size_mm: tuple[float, float]

    def __post_init__(self) -> None:
        for field in ("size_px", "size_mm"):
            require_positive(field, getattr(self, field), count=2)

    @property
    def mm_per_px(self) -> np.ndarray:
        """Width and height of one pixel in millimetres, (2,)."""
        return np.asarray(self.size_mm, float) / np.asarray(self.size_px, float)


@dataclass(frozen=True, kw_only=True, eq=False)
class GazeSamples:
    """n gaze samples in time order, both eyes averaged, on one display.

    Args:
        time_ms: (n,) time in milliseconds, never decreasing.
        xy_px: (n, 2) gaze point in display pixels, origin at the top left; NaN where the gaze is missing or not valid.
        distance_mm: (n,) distance from the eyes to the display in millimetres, positive.
        display: the display that the pixels belong to.

    Raises:
        ValueError: shapes disagree, the time runs backwards or a distance is not positive.
    """

    time_ms: np.ndarray
    xy_px: np.ndarray
    distance_mm: np.ndarray
    display: Display

    def __post_init__(self) -> None:
        n = len(self.time_ms)
        if self.time_ms.shape != (n,) or self.xy_px.shape != (n, 2) or self.distance_mm.shape != (n,):
            raise ValueError(
                f"time_ms, xy_px and distance_mm have shapes {self.time_ms.shape}, {self.xy_px.shape} and "
                f"{self.distance_mm.shape}, expected (n,), (n, 2) and (n,)."
            )
        if not np.isfinite(self.time_ms).all():
            raise ValueError("time_ms holds a value that is not a number.")
        backwards = np.flatnonzero(np.diff(self.time_ms) < 0)
        if backwards.size:
            at = int(backwards[0])
            raise ValueError(f"time_ms runs backwards, from {self.time_ms[at]:g} to {self.time_ms[at + 1]:g}.")
        if not (self.distance_mm > 0).all():
            raise ValueError("distance_mm holds a value that is not positive.")

    def __len__(self) -> int:
        return len(self.time_ms)

    @property
    def valid(self) -> np.ndarray:
        """(n,) bool, True where there is a gaze point."""
        return np.isfinite(self.xy_px).all(axis=1)

    @cached_property
    def period_ms(self) -> float:
        """Time between two samples in milliseconds; long pauses do not count, 0 for fewer than two samples."""
        steps = np.diff(self.time_ms)
        if steps.size == 0:
            return 0.0
        # The mean, not the median: times rounded to whole milliseconds step by 8, 8, 9 at 120 Hz.
        return float(steps[steps <= 2 * max(np.median(steps), 1.0)].mean())

    def gaze_mm(self) -> np.ndarray:
        """(n, 3) line of sight in millimetres: right and down from the centre of the display, and away from the eye.

        The eye is taken to be straight in front of the centre of the display.
        """
        centre = np.asarray(self.display.size_px, float) / 2
        return np.column_stack([(self.xy_px - centre) * self.display.mm_per_px, self.distance_mm])


def require_positive(field: str, value: object, *, count: int) -> None:
    """Check that ``value`` is ``count`` positive finite numbers, and name ``field`` in the ``ValueError`` if not."""
    try:
        numbers = np.asarray(value, float)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (count,) or not (np.isfinite(numbers) & (numbers > 0)).all():
        raise ValueError(f"{field} is {value!r}, expected {count} positive number(s).")


def angle_deg(a_mm: np.ndarray, b_mm: np.ndarray) -> np.ndarray:
    """Lines of sight (..., 3) and (..., 3) in, the angle between them (...) in degrees out."""
    # atan2 stays exact for the small angles of which fixations are made; arccos does not.
    cross = np.linalg.norm(np.cross(a_mm, b_mm), axis=-1)
    return np.degrees(np.arctan2(cross, (a_mm * b_mm).sum(axis=-1)))


def average_eyes(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Gaze points (n, 2) of the left and right eye, NaN where missing, in; their mean (n, 2) out.

    Where one eye is missing the other one stands alone; where both are, the result is NaN.
    """
    left_ok, right_ok = (np.isfinite(eye).all(axis=1, keepdims=True) for eye in (left, right))
    both = np.where(left_ok & right_ok, (left + right) / 2, np.where(left_ok, left, right))
    return np.where(left_ok | right_ok, both, np.nan)


def display_to_image(xy_px: np.ndarray, image_rect_px: tuple[float, float, float, float]) -> np.ndarray:
    """Points (n, 2) in display pixels in, fractions (n, 2) of the shown image's width and height out.

    Args:
        xy_px: points in display pixels, origin at the top left of the display.
        image_rect_px: where the image was on the display: x and y of its top left corner, width, height, in pixels.
    """
    x, y, width, height = image_rect_px
    return (np.asarray(xy_px, float) - (x, y)) / (width, height)
