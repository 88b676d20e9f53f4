"""Gaze samples of one observer on one display, and the way from the display to the image that was shown on it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .stimuli import match_stimuli

logger = logging.getLogger(__name__)

Rect = tuple[float, float, float, float]
# How a person gives what a file does not tell.
_FLAGS = {
    "image_name": "--image_name NAME",
    "screen_size_px": "--screen_size_px W,H",
    "screen_size_mm": "--screen_size_mm W,H",
    "viewing_distance_mm": "--viewing_distance_mm MM",
    "image_rect_px": "--image_rect_px X,Y,W,H",
}


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
    """Return the angle (...) in degrees between lines of sight (..., 3) and (..., 3)."""
    # atan2 stays exact for the small angles of which fixations are made; arccos does not.
    cross = np.linalg.norm(np.cross(a_mm, b_mm), axis=-1)
    return np.degrees(np.arctan2(cross, (a_mm * b_mm).sum(axis=-1)))


def average_eyes(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Average the gaze points (n, 2) of the left and right eye, NaN where missing.

    Where one eye is missing the other one stands alone; where both are, the result is NaN.
    """
    has_left, has_right = (np.isfinite(eye).all(axis=1, keepdims=True) for eye in (left, right))
    mean = np.where(has_left & has_right, (left + right) / 2, np.where(has_left, left, right))
    return np.where(has_left | has_right, mean, np.nan)


def display_to_image(xy_px: np.ndarray, image_rect_px: tuple[float, float, float, float]) -> np.ndarray:
    """Turn points (n, 2) in display pixels into fractions (n, 2) of the image's width and height.

    Args:
        xy_px: points in display pixels, origin at the top left of the display.
        image_rect_px: where the image was on the display: x and y of its top left corner, width, height, in pixels.
    """
    x, y, width, height = image_rect_px
    return (np.asarray(xy_px, float) - (x, y)) / (width, height)


@dataclass(frozen=True, kw_only=True)
class Presentation:
    """One image shown once: its file name, the gaze samples, and its x, y, width and height in display pixels."""

    image_name: str
    samples: GazeSamples
    image_rect_px: Rect


@dataclass(frozen=True, kw_only=True)
class RecordingSetup:
    """What the caller knows of a recording, for files that do not say it; it goes before what the file says.

    Args:
        path: the recording, for messages.
        image_name: file name of the image that was shown, for files without stimulus names.
        screen_size_px: width and height of the display in pixels.
        screen_size_mm: width and height of the display in millimetres.
        viewing_distance_mm: distance from the eyes to the display in millimetres.
        image_rect_px: x and y of the image's top left corner on the display, its width and height, in display pixels.
        participant: whose gaze is meant (or which recording), in an export of several.
        images: file names of the images whose gaze is wanted; None takes every name.
        report: takes each sentence about what was left out.

    Raises:
        ValueError: a size or the distance is not positive, or has the wrong count of numbers.
    """

    path: Path
    image_name: str | None = None
    screen_size_px: Sequence[float] | None = None
    screen_size_mm: Sequence[float] | None = None
    viewing_distance_mm: float | None = None
    image_rect_px: Sequence[float] | None = None
    participant: str | None = None
    images: Collection[str] | None = None
    report: Callable[[str], None] = logger.info

    def __post_init__(self) -> None:
        for field in ("screen_size_px", "screen_size_mm"):
            if getattr(self, field) is not None:
                require_positive(field, getattr(self, field), count=2)
        if self.viewing_distance_mm is not None:
            require_positive("viewing_distance_mm", [self.viewing_distance_mm], count=1)
        if self.image_rect_px is not None:
            numbers = [part for part in self.image_rect_px if isinstance(part, int | float) and np.isfinite(part)]
            if len(numbers) != 4 or len(self.image_rect_px) != 4:
                raise ValueError(f"image_rect_px is {self.image_rect_px!r}, expected x, y, width, height.")
            require_positive("width and height of image_rect_px", self.image_rect_px[2:], count=2)

    def need(self, field: str) -> tuple:
        """Return the values of ``field``, or raise ``ValueError`` if the caller gave none."""
        self.require(field)
        value = getattr(self, field)
        return (value,) if isinstance(value, str | float | int) else tuple(value)

    def require(self, *fields: str) -> None:
        """Raise ``ValueError`` if the caller gave no value for some of ``fields``, and name all of these."""
        missing = [field for field in fields if getattr(self, field) is None]
        if missing:
            flags = " ".join(_FLAGS[field] for field in missing)
            raise ValueError(f"{self.path}: the file does not tell {', '.join(missing)}: give {flags}.")

    def on_images(self, names: np.ndarray) -> np.ndarray:
        """Turn the names of what was shown (n,) into those of the images, "" for all else, and report what else.

        Raises:
            ValueError: nothing that was shown is one of the images, or it could be one of several.
        """
        shown = [name for name in dict.fromkeys(names) if name]
        if not shown:
            raise ValueError(f"{self.path}: a row has no image name, and so have all others.")
        if self.images is None:
            return names
        try:
            matches = match_stimuli(shown, self.images)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}.") from error
        others = [name for name in shown if name not in matches]
        some = ", ".join(others[:2]) + (", ..." if len(others) > 2 else "")
        if not matches:
            raise ValueError(f"{self.path}: gaze on none of the {len(self.images)} images, but on {some}.")
        if others:
            self.report(f"gaze on {len(others)} other screen{'s' * (len(others) > 1)} ({some}) was left out.")
        return np.array([matches.get(name, "") for name in names], object)

    def display(self) -> Display:
        """Return the display as the caller described it."""
        return Display(size_px=self.need("screen_size_px"), size_mm=self.need("screen_size_mm"))

    def distances_mm(self, measured: np.ndarray) -> np.ndarray:
        """Fill the gaps of measured distances (n,), NaN or not positive where missing.

        The caller's viewing distance stands for all; else the median of the measured ones fills the gaps.
        """
        if self.viewing_distance_mm is not None:
            return np.full(len(measured), float(self.viewing_distance_mm))
        valid = np.isfinite(measured) & (measured > 0)
        if not valid.any():
            self.need("viewing_distance_mm")
        return np.where(valid, measured, np.median(measured[valid]))

    def samples(
        self, *, time_ms: np.ndarray, xy_px: np.ndarray, distance_mm: np.ndarray, display: Display
    ) -> GazeSamples:
        """Build the samples; a ``ValueError`` names the file."""
        try:
            return GazeSamples(time_ms=time_ms, xy_px=xy_px, distance_mm=distance_mm, display=display)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error

    def from_display_fractions(
        self, *, time_ms: np.ndarray, left: np.ndarray, right: np.ndarray, distance_mm: np.ndarray
    ) -> list[Presentation]:
        """Make the one presentation of a file from the gaze of both eyes (n, 2) in fractions of the display.

        Points further than one display away from the display count as missing, as in the reader of I2MC
        (R. Hessels et al., "Noise-robust fixation detection in eye movement data", 2017).
        """
        self.require("image_name", "image_rect_px", "screen_size_px", "screen_size_mm")
        display = self.display()
        eyes = [np.where(((eye >= -1) & (eye <= 2)).all(axis=1, keepdims=True), eye, np.nan) for eye in (left, right)]
        samples = self.samples(
            time_ms=time_ms,
            xy_px=average_eyes(*eyes) * display.size_px,
            distance_mm=self.distances_mm(distance_mm),
            display=display,
        )
        (name,) = self.on_images(np.array(self.need("image_name"), object))
        return [Presentation(image_name=name, samples=samples, image_rect_px=self.need("image_rect_px"))]
