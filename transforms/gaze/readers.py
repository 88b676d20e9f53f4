"""Readers of gaze recordings: from any known file format to the fixations on each image.

One file is one observer. Names of participants and recordings are read only to see that there is a single one; they
are neither returned nor logged.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .fixation_filters import idt_fixations, ivt_fixations
from .samples import Presentation, RecordingSetup, display_to_image
from .tables import Column, GazeTable, open_table, read_points, read_time_ms, read_validity
from .tobii import (
    PYTRACK_SIGNATURE,
    SDK_SIGNATURE,
    TX300_SIGNATURE,
    is_tobii_export,
    read_exported_fixations,
    read_pytrack,
    read_tobii_export,
    read_tobii_sdk,
    read_tx300,
)

logger = logging.getLogger(__name__)

FILTERS: dict[str, Callable[..., np.ndarray]] = {"ivt": ivt_fixations, "idt": idt_fixations}
GAZEMEDSEG_SIGNATURE = frozenset({"image", "current_fix_x", "current_fix_y", "current_fix_duration"})
SAMPLE_READERS: dict[str, Callable[[GazeTable, RecordingSetup], list[Presentation]]] = {
    "tobii_export": read_tobii_export,
    "tobii_sdk": read_tobii_sdk,
    "tobii_tx300": read_tx300,
    "pytrack": read_pytrack,
}
FORMATS = ("gazemedseg", *SAMPLE_READERS, "csv")
CSV_COLUMNS = {"x": "x", "y": "y", "time": "time"}
_CSV_FIELDS = ("x", "y", "time", "duration", "validity", "image")


def read_fixations(
    path: str | Path,
    *,
    gaze_format: str = "auto",
    fixation_filter: str = "ivt",
    filter_settings: Mapping[str, float] | None = None,
    use_exported_fixations: bool = False,
    image_name: str | None = None,
    screen_size_px: Sequence[float] | None = None,
    screen_size_mm: Sequence[float] | None = None,
    viewing_distance_mm: float | None = None,
    image_rect_px: Sequence[float] | None = None,
    columns: Mapping[str, str] | None = None,
    position_unit: str = "px",
    time_unit: str = "",
) -> dict[str, np.ndarray]:
    """Read the fixations of one observer on each image of a recording.

    x and y are fractions of the image's width and height, origin at the top left. An image that was shown but not
    looked at has an array (0, 3). Fixations off the image are dropped; how many, and how many samples were not valid,
    is logged.

    Args:
        path: the file: text with tab, ``;`` or ``,`` between the fields.
        gaze_format: ``gazemedseg`` (fixations of GazeMedSeg), ``tobii_export`` (Tobii Studio 3.x and Pro Lab),
            ``tobii_sdk`` (Tobii Pro SDK and Titta), ``tobii_tx300`` (old SDK), ``pytrack``, ``csv`` (see ``columns``),
            or ``auto``, by the header.
        fixation_filter: ``ivt`` or ``idt``, for formats with raw samples.
        filter_settings: arguments of :func:`ivt_fixations` or :func:`idt_fixations` that differ from their defaults.
        use_exported_fixations: take Tobii's own fixations from a ``tobii_export`` instead of filtering the samples.
        image_name: file name of the image, for files that do not name it.
        screen_size_px: width and height of the display in pixels, as the following for files that do not tell.
        screen_size_mm: width and height of the display in millimetres.
        viewing_distance_mm: distance from the eyes to the display in millimetres.
        image_rect_px: x, y, width and height of the image on the display in pixels.
        columns: for ``csv``, the column of ``x``, ``y`` and ``time`` and, where there are such, of ``image`` (file
            names), ``validity`` (1 or 0) and ``duration`` (in ms; then each row is a fixation and needs no time).
        position_unit: for ``csv``, ``px`` (display pixels) or ``fraction`` (of the display; with ``duration``, of the
            image).
        time_unit: for ``csv``, ``s``, ``ms`` or ``us``; if empty, the step between samples decides.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the format is unknown, a field is missing or malformed, no sample is valid, or an argument is
            missing or wrong.
    """
    path = Path(path)
    if fixation_filter not in FILTERS:
        raise ValueError(f"fixation_filter is {fixation_filter!r}, expected one of {', '.join(FILTERS)}.")
    setup = RecordingSetup(
        path=path,
        image_name=image_name,
        screen_size_px=screen_size_px,
        screen_size_mm=screen_size_mm,
        viewing_distance_mm=viewing_distance_mm,
        image_rect_px=image_rect_px,
    )
    table = open_table(path)
    if gaze_format == "auto":
        gaze_format = detect_format(table, columns)
    elif gaze_format not in FORMATS:
        raise ValueError(f"gaze_format is {gaze_format!r}, expected auto or one of {', '.join(FORMATS)}.")
    if use_exported_fixations:
        if gaze_format != "tobii_export":
            raise ValueError(f"{path}: use_exported_fixations is set, but a file of format {gaze_format} has none.")
        return _on_image(read_exported_fixations(table, setup))
    if gaze_format == "gazemedseg":
        return _on_image(_read_gazemedseg(table))
    if gaze_format == "csv":
        source = _read_csv(table, setup, columns or CSV_COLUMNS, position_unit=position_unit, time_unit=time_unit)
        if isinstance(source, dict):
            return _on_image(source)
    else:
        source = SAMPLE_READERS[gaze_format](table, setup)
    return _on_image(_filter(source, path, FILTERS[fixation_filter], filter_settings or {}))


def with_fixations(
    items: Sequence[Mapping[str, Any]], *, gaze_file: str | Path | None, gaze_format: str = "auto"
) -> list[dict[str, Any]]:
    """Add ``"fixations"`` to the items whose ``"image"`` was looked at in a recording.

    Args:
        items: with the path of an image each; it is matched by its file name.
        gaze_file: the recording of one observer, see :func:`read_fixations`; None adds nothing.
        gaze_format: its format.

    Returns:
        Copies of the items; ``"fixations"`` is a list over observers (here one) of [x, y, duration in ms] rows.

    Raises:
        FileNotFoundError: there is no such recording.
        ValueError: it cannot be read, or has gaze for none of the images.
    """
    copies = [dict(item) for item in items]
    if gaze_file is None:
        return copies
    gaze = read_fixations(gaze_file, gaze_format=gaze_format)
    matches = [item for item in copies if Path(item["image"]).name in gaze]
    if not matches:
        folders = sorted({str(Path(item["image"]).parent) for item in copies})
        raise ValueError(f"{gaze_file}: gaze for none of the {len(copies)} images in {', '.join(folders)}.")
    for item in matches:
        item["fixations"] = [gaze[Path(item["image"]).name].tolist()]
    return copies


def detect_format(table: GazeTable, columns: Mapping[str, str] | None = None) -> str:
    """Detect the format of a table by its header.

    Raises:
        ValueError: the header fits no known format.
    """
    stems = table.stems
    if columns is not None:
        return "csv"
    if is_tobii_export(stems):
        return "tobii_export"
    signatures = {
        "gazemedseg": GAZEMEDSEG_SIGNATURE,
        "tobii_sdk": SDK_SIGNATURE,
        "tobii_tx300": TX300_SIGNATURE,
        "pytrack": PYTRACK_SIGNATURE,
        "csv": frozenset(CSV_COLUMNS.values()),
    }
    for name, signature in signatures.items():
        if signature <= stems:
            return name
    missing = [f"{name} (no {', '.join(sorted(signature - stems))})" for name, signature in signatures.items()]
    raise ValueError(
        f"{table.path}: the header, {len(table.columns)} column(s) if split at {table.delimiter!r}, fits no known gaze "
        f"format. Tried tobii_export (no Recording timestamp with a Gaze point), {', '.join(missing)}."
    )


def _read_gazemedseg(table: GazeTable) -> dict[str, np.ndarray]:
    table.load(GAZEMEDSEG_SIGNATURE)
    names = table.text(table.need("image"))
    return _fixations_by_image(table, names, [table.need(f"current_fix_{stem}") for stem in ("x", "y", "duration")])


def _fixations_by_image(table: GazeTable, names: np.ndarray, columns: Sequence[Column]) -> dict[str, np.ndarray]:
    """Sort a table with one fixation a row by image: (n, 3) from three columns, in their units, by image name."""
    rows = np.column_stack([table.numbers(column) for column in columns])
    for column, values in zip(columns, rows.T, strict=True):
        if np.isnan(values).any():
            raise ValueError(f"{table.path}: column {column.name!r} has an empty field.")
    if (rows[:, 2] <= 0).any():
        shortest = rows[:, 2].min()
        raise ValueError(f"{table.path}: column {columns[2].name!r} has {shortest:g}, expected a positive time.")
    if (names == "").any():
        raise ValueError(f"{table.path}: a row has no image name.")
    return {str(name): rows[names == name] for name in dict.fromkeys(names)}


def _read_csv(
    table: GazeTable, setup: RecordingSetup, columns: Mapping[str, str], *, position_unit: str, time_unit: str
) -> list[Presentation] | dict[str, np.ndarray]:
    """Read a table with columns named by the caller: presentations, or fixations by image if it has durations."""
    unknown = set(columns) - set(_CSV_FIELDS)
    if unknown:
        raise ValueError(f"columns names the field {min(unknown)!r}, expected some of {', '.join(_CSV_FIELDS)}.")
    if position_unit not in ("px", "fraction"):
        raise ValueError(f"position_unit is {position_unit!r}, expected 'px' or 'fraction'.")
    fields = {field: _named(table, name) for field, name in columns.items()}
    for field in ("x", "y", *(() if "duration" in fields else ("time",))):
        if field not in fields:
            raise ValueError(f"columns does not name the field {field!r}.")
    table.load(frozenset(column.stem for column in fields.values()))
    names = table.text(fields["image"]) if "image" in fields else None
    names = np.full(len(table.rows), setup.need("image_name")[0], object) if names is None else names
    if "duration" in fields:
        fixations = _fixations_by_image(table, names, [fields[field] for field in ("x", "y", "duration")])
        if position_unit == "px":
            rect = setup.need("image_rect_px")
            for rows in fixations.values():
                rows[:, :2] = display_to_image(rows[:, :2], rect)
        return fixations
    time_ms = read_time_ms(table, fields["time"], unit=time_unit)
    valid = read_validity(table, fields.get("validity"), codes=False)
    xy = read_points(table, fields["x"], fields["y"], valid=valid)
    if position_unit == "px":
        xy = xy / setup.need("screen_size_px")
    presentations = []
    for rows in np.split(np.arange(len(names)), np.flatnonzero(names[1:] != names[:-1]) + 1):
        if names[rows[0]]:
            image_setup = replace(setup, image_name=names[rows[0]])
            no_distance = np.full(len(rows), np.nan)
            presentations += image_setup.from_display_fractions(
                time_ms=time_ms[rows], left=xy[rows], right=xy[rows], distance_mm=no_distance
            )
    return presentations


def _named(table: GazeTable, name: str) -> Column:
    for column in table.columns:
        if column.name == name:
            return column
    raise ValueError(f"{table.path}: missing column {name!r}.")


def _filter(
    presentations: list[Presentation], path: Path, find: Callable[..., np.ndarray], settings: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    unknown = set(settings) - (set(inspect.signature(find).parameters) - {"samples"})
    if unknown:
        raise ValueError(f"filter_settings has {min(unknown)!r}, which {find.__name__} does not take.")
    count = sum(len(presentation.samples) for presentation in presentations)
    valid = sum(int(presentation.samples.valid.sum()) for presentation in presentations)
    if not valid:
        raise ValueError(f"{path}: none of the {count} gaze samples on an image is valid.")
    if valid < count:
        logger.info("%d of %d gaze samples are not valid and were left out.", count - valid, count)
    by_image: dict[str, list[np.ndarray]] = {}
    for presentation in presentations:
        fixations = find(presentation.samples, **settings)
        fixations[:, :2] = display_to_image(fixations[:, :2], presentation.image_rect_px)
        by_image.setdefault(presentation.image_name, []).append(fixations)
    return {name: np.concatenate(parts) for name, parts in by_image.items()}


def _on_image(fixations: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Drop the fixations off their image, or without a position, and log how many."""
    inside = {name: rows[((rows[:, :2] >= 0) & (rows[:, :2] <= 1)).all(axis=1)] for name, rows in fixations.items()}
    before, after = (sum(len(rows) for rows in each.values()) for each in (fixations, inside))
    if after < before:
        logger.info("%d of %d fixations lie off the image and were dropped.", before - after, before)
    return inside
