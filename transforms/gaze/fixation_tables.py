"""Tables with one fixation a row: GazeMedSeg's, and any whose columns the caller names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .participants import PARTICIPANT_STEMS, choose_participant
from .samples import RecordingSetup, display_to_image
from .tables import Column, GazeTable

GAZEMEDSEG_SIGNATURE = frozenset({"image", "current_fix_x", "current_fix_y", "current_fix_duration"})
POSITION_UNITS = {"px": 1.0, "fraction": 1.0, "percent": 100.0}
_PLURALS = {"px": "pixels", "fraction": "fractions", "percent": "percent"}
_TO_MS = {"s": 1e3, "ms": 1.0, "us": 1e-3}
# Fixations last 50 to 1000 ms; a median out of these bounds is counted in another unit.
_MEDIAN_MS = (10, 20_000)


def read_gazemedseg(
    table: GazeTable, setup: RecordingSetup, *, position_unit: str = "", time_unit: str = ""
) -> dict[str, np.ndarray]:
    """Read the fixations of a table with GazeMedSeg's columns, which an EyeLink report has too, by image.

    Positions are fractions, unless ``position_unit`` says otherwise or ``setup`` has an image_rect_px.

    Raises:
        ValueError: see :func:`fixations_by_image`.
    """
    table.load(GAZEMEDSEG_SIGNATURE | PARTICIPANT_STEMS, distinct=True)
    choose_participant(table, setup.participant)
    columns = [table.need(f"current_fix_{stem}") for stem in ("x", "y", "duration")]
    unit = position_unit or ("fraction" if setup.image_rect_px is None else "px")
    names = table.names(table.need("image"))
    return fixations_by_image(table, setup, names, columns, position_unit=unit, time_unit=time_unit)


def fixations_by_image(
    table: GazeTable,
    setup: RecordingSetup,
    names: np.ndarray,
    columns: Sequence[Column],
    *,
    position_unit: str,
    time_unit: str = "",
) -> dict[str, np.ndarray]:
    """Sort a table with one fixation a row by image: (m, 3) of x and y as fractions of the image, and ms, by its name.

    Fixations without a name, a position or a positive duration are dropped and reported, and so are rows that stand
    twice.

    Args:
        table: the file, with its rows.
        setup: has the images, and image_rect_px for positions in pixels.
        names: what was shown (n,), empty where the row does not say it.
        columns: of x, y and duration.
        position_unit: ``px`` (of the display), ``fraction`` or ``percent`` (of the image).
        time_unit: ``s``, ``ms`` or ``us``; milliseconds if empty.

    Raises:
        ValueError: a field is malformed, most fixations are incomplete or stand twice, or the numbers are those of
            another unit.
    """
    _say_repeated(table, setup)
    rows = np.column_stack([table.numbers(column) for column in columns])
    names = setup.on_images(names)
    rows, names = rows[names != ""], names[names != ""]
    whole = _complete(table.path, rows, columns, setup)
    images, rows, names = dict.fromkeys(names), rows[whole], names[whole]
    check_positions(table.path, rows[:, :2], position_unit)
    if position_unit == "px":
        rows[:, :2] = display_to_image(rows[:, :2], setup.need("image_rect_px"))
    else:
        rows[:, :2] /= POSITION_UNITS[position_unit]
    rows[:, 2] = _durations_ms(table.path, columns[2], rows[:, 2], time_unit)
    return {str(name): rows[names == name] for name in images}


def check_positions(path: Path, xy: np.ndarray, unit: str) -> None:
    """Refuse positions (n, 2), NaN where missing, whose range is that of another unit of POSITION_UNITS.

    Raises:
        ValueError: fractions or percentages lie mostly outside the whole, or pixels all within one pixel.
    """
    xy = xy[np.isfinite(xy).all(axis=1)]
    if not len(xy):
        return
    if unit != "fraction" and ((xy >= 0) & (xy <= 1)).all():
        raise ValueError(
            f"{path}: all {len(xy)} positions lie between 0 and 1, these look like fractions, not {_PLURALS[unit]}: "
            "--position_unit fraction reads them."
        )
    if unit == "px":
        return
    whole = POSITION_UNITS[unit]
    outside = (xy < 0) | (xy > whole)
    is_far = ((xy < -whole) | (xy > 2 * whole)).any(axis=1)
    if outside.mean(axis=0).max() <= 0.5 and is_far.mean() <= 0.1:
        return
    is_percent = unit == "fraction" and np.mean((xy >= 0) & (xy <= 100)) > 0.9
    way = "with --image_rect_px X,Y,W,H, where the image lay on the screen, converts them"
    x, y = xy[outside.any(axis=1)][0]
    raise ValueError(
        f"{path}: {int(outside.any(axis=1).sum())} of {len(xy)} positions lie outside 0 to {whole:g}, such as {x:g}, "
        f"{y:g}: these look like {'percent or pixels' if is_percent else 'pixels'}, not {_PLURALS[unit]}; "
        f"{'--position_unit percent reads them, or' if is_percent else '--position_unit'} px {way}."
    )


def _say_repeated(table: GazeTable, setup: RecordingSetup) -> None:
    if table.repeated > len(table.rows):
        raise ValueError(
            f"{table.path}: {table.repeated} rows are the same as an earlier one, and only {len(table.rows)} are not: "
            "was the table written several times over?"
        )
    if table.repeated:
        setup.report(f"{table.repeated} rows are the same as an earlier one and were dropped.")


def _complete(path: Path, rows: np.ndarray, columns: Sequence[Column], setup: RecordingSetup) -> np.ndarray:
    """Tell which rows (n, 3) have a position and a duration, bool (n,); refuse a table where most have none."""
    faults: Mapping[str, np.ndarray] = {
        **{f"column {c.name!r} has an empty field": ~np.isfinite(v) for c, v in zip(columns, rows.T, strict=True)},
        f"column {columns[2].name!r} has a duration of 0": rows[:, 2] == 0,
        f"column {columns[2].name!r} has a negative duration": rows[:, 2] < 0,
    }
    complete = ~np.any(list(faults.values()), axis=0)
    lost = int((~complete).sum())
    if 2 * lost > len(rows):
        fault, where = max(faults.items(), key=lambda each: each[1].sum())
        raise ValueError(
            f"{path}: {fault} in {int(where.sum())} of {len(rows)} fixations: is it the column that was meant?"
        )
    if lost:
        setup.report(f"{lost} of {len(rows)} fixations have an empty field or no positive duration and were dropped.")
    return complete


def _durations_ms(path: Path, column: Column, durations: np.ndarray, unit: str) -> np.ndarray:
    unit = unit or column.unit or "ms"
    if unit not in _TO_MS:
        raise ValueError(f"{path}: column {column.name!r} has the unit {unit!r}, expected 's', 'ms' or 'us'.")
    durations = durations * _TO_MS[unit]
    median = float(np.median(durations)) if len(durations) else 100.0
    if not _MEDIAN_MS[0] <= median <= _MEDIAN_MS[1]:
        raise ValueError(
            f"{path}: column {column.name!r} has a median of {median:g} ms, which is that of no fixations: "
            "--time_unit s or us says in what it counts."
        )
    return durations
