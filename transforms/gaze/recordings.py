"""What readers of raw gaze share: what the caller knows of a recording, units of time, validity, presentations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .samples import Display, GazeSamples, average_eyes, require_positive
from .tables import Column, GazeTable

Rect = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Presentation:
    """One image shown once: its file name, the gaze samples, and its x, y, width and height in display pixels."""

    image_name: str
    samples: GazeSamples
    image_rect_px: Rect


@dataclass(frozen=True, kw_only=True)
class RecordingSetup:
    """What the caller knows of a recording, for files that do not say it; a value given here goes before the file's.

    Args:
        path: the recording, for messages.
        image_name: file name of the image that was shown, for files without stimulus names.
        screen_size_px: width and height of the display in pixels.
        screen_size_mm: width and height of the display in millimetres.
        viewing_distance_mm: distance from the eyes to the display in millimetres.
        image_rect_px: x and y of the image's top left corner on the display, its width and height, in display pixels.

    Raises:
        ValueError: a size or the distance is not positive, or has the wrong count of numbers.
    """

    path: Path
    image_name: str | None = None
    screen_size_px: Sequence[float] | None = None
    screen_size_mm: Sequence[float] | None = None
    viewing_distance_mm: float | None = None
    image_rect_px: Sequence[float] | None = None

    def __post_init__(self) -> None:
        for field in ("screen_size_px", "screen_size_mm"):
            if getattr(self, field) is not None:
                require_positive(field, getattr(self, field), count=2)
        if self.viewing_distance_mm is not None:
            require_positive("viewing_distance_mm", [self.viewing_distance_mm], count=1)
        if self.image_rect_px is not None:
            if len(self.image_rect_px) != 4 or not np.isfinite(self.image_rect_px).all():
                raise ValueError(f"image_rect_px is {self.image_rect_px!r}, expected x, y, width, height.")
            require_positive("width and height of image_rect_px", self.image_rect_px[2:], count=2)

    def need(self, field: str) -> tuple:
        """Return the values of ``field``, or raise ``ValueError`` if the caller gave none."""
        value = getattr(self, field)
        if value is None:
            raise ValueError(f"{self.path}: the file does not tell {field}; give it as an argument.")
        return (value,) if isinstance(value, str | float | int) else tuple(value)

    def display(self) -> Display:
        """The display as the caller described it."""
        return Display(size_px=self.need("screen_size_px"), size_mm=self.need("screen_size_mm"))

    def distances_mm(self, measured: np.ndarray) -> np.ndarray:
        """Measured distances (n,), NaN or not positive where missing, in; distances without gaps (n,) out.

        The caller's viewing distance stands for all; else the median of the measured ones fills the gaps.
        """
        if self.viewing_distance_mm is not None:
            return np.full(len(measured), float(self.viewing_distance_mm))
        known = np.isfinite(measured) & (measured > 0)
        if not known.any():
            self.need("viewing_distance_mm")
        return np.where(known, measured, np.median(measured[known]))

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
        """Gaze of both eyes (n, 2) in fractions of the display in, the one presentation of the file out.

        Points further than one display away from the display count as missing, as in the reader of I2MC
        (R. Hessels et al., "Noise-robust fixation detection in eye movement data", 2017).
        """
        display = self.display()
        eyes = [np.where(((eye >= -1) & (eye <= 2)).all(axis=1, keepdims=True), eye, np.nan) for eye in (left, right)]
        samples = self.samples(
            time_ms=time_ms,
            xy_px=average_eyes(*eyes) * display.size_px,
            distance_mm=self.distances_mm(distance_mm),
            display=display,
        )
        name, rect = self.need("image_name")[0], self.need("image_rect_px")
        return [Presentation(image_name=name, samples=samples, image_rect_px=rect)]


def read_time_ms(table: GazeTable, column: Column, *, unit: str = "") -> np.ndarray:
    """Column of time stamps in, times (n,) in milliseconds out.

    Args:
        table: the file.
        column: its time stamps.
        unit: ``s``, ``ms`` or ``us``; if empty, the unit in the header; if there is none, the step decides. Trackers
            step by 0.8 to 100 ms, so a step of 8.33 means milliseconds, of 8333 microseconds, of 0.00833 seconds.

    Raises:
        ValueError: a stamp is missing, the unit is unknown, or the step fits no tracker.
    """
    stamps = table.numbers(column)
    if np.isnan(stamps).any():
        raise ValueError(f"{table.path}: column {column.name!r} has an empty field, expected a time in every row.")
    unit = unit or column.unit
    step = float(np.median(np.diff(stamps))) if len(stamps) > 1 else 1.0
    if not unit:
        unit = "us" if step >= 200 else "ms" if step >= 0.2 else "s"
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}.get(unit)
    if scale is None:
        raise ValueError(f"{table.path}: column {column.name!r} has the unit {unit!r}, expected 's', 'ms' or 'us'.")
    if not 0.2 <= step * scale <= 1000:
        raise ValueError(
            f"{table.path}: column {column.name!r} steps by {step:g} {unit} in the median, which fits no eye tracker."
        )
    return stamps * scale


def read_validity(table: GazeTable, column: Column | None, *, codes: bool) -> np.ndarray:
    """Column of validity in, bool (n,) out; no column makes every sample valid, an empty field an invalid one.

    Args:
        table: the file.
        column: ``Valid``/``Invalid``, or numbers.
        codes: True for Tobii's codes 0 to 4, of which 0 and 1 are valid; False for flags, 1 or ``True`` is valid.

    Raises:
        ValueError: a field is none of these.
    """
    if column is None:
        return np.ones(len(table.rows), bool)
    text = np.array([value.lower().removesuffix(".0") for value in table.text(column)], dtype=str)
    good: tuple[str, ...] = ("valid", "0", "1") if codes else ("valid", "1", "true")
    bad: tuple[str, ...] = ("invalid", "2", "3", "4") if codes else ("invalid", "0", "false")
    known = np.isin(text, (*good, *bad, "", "nan", "-1"))
    if not known.all():
        wrong, expected = str(text[~known][0]), ", ".join((*good, *bad))
        raise ValueError(f"{table.path}: column {column.name!r} has {wrong!r}, expected one of {expected}.")
    return np.isin(text, good)


def read_points(table: GazeTable, x: Column, y: Column, *, valid: np.ndarray) -> np.ndarray:
    """Two columns in, points (n, 2) out, NaN where a field is empty or ``valid`` (n,) is False."""
    return np.where(valid[:, None], np.column_stack([table.numbers(x), table.numbers(y)]), np.nan)
