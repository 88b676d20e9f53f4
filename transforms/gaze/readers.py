"""Readers of gaze recordings: from any known file format to the fixations on each image.

One file is one observer. Names of participants and recordings are read only to see that there is a single one; they
are neither returned nor logged.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .fixation_filters import idt_fixations, ivt_fixations
from .fixation_tables import (
    GAZEMEDSEG_SIGNATURE,
    POSITION_UNITS,
    check_positions,
    fixations_by_image,
    read_gazemedseg,
)
from .original_sizes import naming_of, read_original_sizes
from .participants import PARTICIPANT_STEMS, choose_participant
from .samples import Presentation, RecordingSetup, display_to_image
from .stimulus_events import STIMULUS_STEMS, split_by_image
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
SAMPLE_READERS: dict[str, Callable[[GazeTable, RecordingSetup], list[Presentation]]] = {
    "tobii_export": read_tobii_export,
    "tobii_sdk": read_tobii_sdk,
    "tobii_tx300": read_tx300,
    "pytrack": read_pytrack,
}
FORMATS = ("gazemedseg", *SAMPLE_READERS, "csv")
CSV_COLUMNS = {"x": "x", "y": "y", "time": "time"}
_CSV_FIELDS = ("x", "y", "time", "duration", "validity", "image", "participant")
# Settings that only some formats have a use for.
_ONLY_FOR = {
    "position_unit": ("gazemedseg", "csv"),
    "time_unit": ("gazemedseg", "csv"),
    "gaze_columns": ("csv",),
    "use_exported_fixations": ("tobii_export",),
}


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
    participant: str | None = None,
    columns: Mapping[str, str] | None = None,
    position_unit: str = "",
    time_unit: str = "",
    allow_off_image: bool = False,
    images: Collection[str] | None = None,
    report: Callable[[str], None] = logger.info,
) -> dict[str, np.ndarray]:
    """Read the fixations of one observer on each image of a recording.

    x and y are fractions of the image's width and height, origin at the top left. An image that was shown but not
    looked at has an array (0, 3). Incomplete fixations, repeated ones and those off the image are dropped; how many,
    and how many samples were not valid, is reported.

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
        participant: name of the participant, or of the recording, in a file of several.
        columns: for ``csv``, the column of ``x``, ``y`` and ``time`` and, where there are such, of ``image`` (file
            names), ``participant``, ``validity`` (1 or 0) and ``duration`` (then each row is a fixation and needs no
            time).
        position_unit: for ``csv``, ``px`` (display pixels, the default) or ``fraction`` or ``percent`` (of the display;
            with ``duration``, of the image); for ``gazemedseg``, ``fraction`` by default, or ``px`` with image_rect_px.
        time_unit: for ``csv`` and ``gazemedseg``, ``s``, ``ms`` or ``us``; if empty, the step between samples decides,
            and durations are in ms.
        allow_off_image: take a recording of which most fixations lie off the image.
        images: file names of a data set's images: names in the recording become theirs, see
            :func:`~.stimuli.match_stimuli`, and gaze on other screens is left out; None takes every name as it is.
        report: takes each sentence about what was left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the format is unknown, a field is missing or malformed, no sample is valid, most fixations are
            incomplete, repeated or off their image, nothing was shown that is one of ``images``, or an argument is
            missing or wrong.
    """
    path = Path(path)
    if fixation_filter not in FILTERS:
        raise ValueError(f"fixation_filter is {fixation_filter!r}, expected one of {', '.join(FILTERS)}.")
    if position_unit not in ("", *POSITION_UNITS):
        raise ValueError(f"position_unit is {position_unit!r}, expected one of {', '.join(POSITION_UNITS)}.")
    setup = RecordingSetup(
        path=path,
        image_name=image_name,
        screen_size_px=screen_size_px,
        screen_size_mm=screen_size_mm,
        viewing_distance_mm=viewing_distance_mm,
        image_rect_px=image_rect_px,
        participant=participant,
        images=images,
        report=report,
    )
    table = open_table(path)
    given = {
        "gaze_columns": columns,
        "position_unit": position_unit,
        "time_unit": time_unit,
        "use_exported_fixations": use_exported_fixations,
    }
    gaze_format = _choose_format(table, gaze_format, columns, [name for name, value in given.items() if value])
    units = {"position_unit": position_unit, "time_unit": time_unit}
    if use_exported_fixations:
        source: Any = read_exported_fixations(table, setup)
    elif gaze_format == "gazemedseg":
        source = read_gazemedseg(table, setup, **units)
    elif gaze_format == "csv":
        source = _read_csv(table, setup, columns, **units)
    else:
        source = SAMPLE_READERS[gaze_format](table, setup)
    if not isinstance(source, dict):
        source = _filter(source, setup, FILTERS[fixation_filter], filter_settings or {})
    return _on_image(source, setup, allow_most=allow_off_image)


def _choose_format(table: GazeTable, gaze_format: str, columns: Mapping[str, str] | None, given: Sequence[str]) -> str:
    """Check the format that the caller names, or detect it, and that the settings that are ``given`` are for it."""
    if gaze_format == "auto":
        gaze_format = detect_format(table, columns)
    elif gaze_format not in FORMATS:
        raise ValueError(f"gaze_format is {gaze_format!r}, expected auto or one of {', '.join(FORMATS)}.")
    for name in given:
        if gaze_format not in _ONLY_FOR[name]:
            formats = " and ".join(_ONLY_FOR[name])
            raise ValueError(f"{table.path}: --{name} is for files of format {formats}, and this one is {gaze_format}.")
    return gaze_format


def with_fixations(
    items: Sequence[Mapping[str, Any]],
    *,
    gaze_file: str | Path | None,
    gaze_format: str = "auto",
    gaze_settings: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Add ``"fixations"`` to the items whose ``"image"`` was looked at in a recording.

    Args:
        items: with the path of an image each; it is matched by its file name, see :func:`~.stimuli.match_stimuli`.
        gaze_file: the recording of one observer, see :func:`read_fixations`; None adds nothing.
        gaze_format: its format.
        gaze_settings: further arguments of :func:`read_fixations`, for what the file does not tell.

    Returns:
        Copies of the items; ``"fixations"`` is a list over observers (here one) of [x, y, duration in ms] rows, and
        ``"original_size"`` height and width of the original image where the recording tells them.

    Raises:
        FileNotFoundError: there is no such recording.
        ValueError: it cannot be read, has gaze for none of the images, or for a file name that two of them have.
    """
    copies = [dict(item) for item in items]
    if gaze_file is None:
        return copies
    names = [Path(item["image"]).name for item in copies]
    settings = dict(gaze_settings or {})
    unknown = settings.keys() - (inspect.signature(read_fixations).parameters.keys() - {"path", "images", "report"})
    if unknown:
        raise ValueError(f"gaze_settings has {min(unknown)!r}, which read_fixations does not take.")
    try:
        gaze = read_fixations(gaze_file, gaze_format=gaze_format, images=set(names), **settings)
        sizes = read_original_sizes(gaze_file, images=set(names), **naming_of(settings))
    except ValueError as error:
        raise ValueError(f"{error} Here such options are entries of gaze_settings.") from error
    looked_at: dict[str, Any] = {}
    for item, name in zip(copies, names, strict=True):
        if len(gaze.get(name, ())):
            if (other := looked_at.setdefault(name, item["image"])) != item["image"]:
                raise ValueError(
                    f"{gaze_file}: its gaze on {name} fits both {other} and {item['image']}: apply the bundle to the "
                    "images of one folder at a time, or give them different names."
                )
            item["fixations"] = [gaze[name].tolist()]
            item |= {"original_size": list(sizes[name])} if name in sizes else {}
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
        f"format. Tried tobii_export (no Recording timestamp with a Gaze point), {', '.join(missing)}. Columns of "
        "other names: --gaze_columns x=NAME,y=NAME,time=NAME,image=NAME."
    )


def _read_csv(
    table: GazeTable, setup: RecordingSetup, columns: Mapping[str, str] | None, *, position_unit: str, time_unit: str
) -> list[Presentation] | dict[str, np.ndarray]:
    """Read a table with columns named by the caller: presentations, or fixations by image if it has durations."""
    fields = _csv_fields(table, columns or CSV_COLUMNS)
    stimulus = table.find(*STIMULUS_STEMS)
    if stimulus is not None and not columns:
        fields["image"] = stimulus
    stems = frozenset(column.stem for column in fields.values())
    table.load(stems | PARTICIPANT_STEMS | {*STIMULUS_STEMS}, distinct="duration" in fields)
    choose_participant(table, setup.participant, [fields["participant"]] if "participant" in fields else None)
    if "image" in fields and setup.image_name is not None:
        raise ValueError(f"{table.path}: --image_name is given, but column {fields['image'].name!r} names the images.")
    if "image" in fields:
        names = table.names(fields["image"])
    elif stimulus is not None and len(set(table.names(stimulus)) - {""}) > 1:
        raise ValueError(
            f"{table.path}: column {stimulus.name!r} names several images: --gaze_columns image={stimulus.name} tells "
            "them apart."
        )
    else:
        names = np.full(len(table.rows), setup.need("image_name")[0], object)
    unit = position_unit or "px"
    if "duration" in fields:
        three = [fields[field] for field in ("x", "y", "duration")]
        return fixations_by_image(table, setup, names, three, position_unit=unit, time_unit=time_unit)
    setup.require("image_rect_px", "screen_size_px", "screen_size_mm", "viewing_distance_mm")
    names = setup.on_images(names)
    time_ms = read_time_ms(table, fields["time"], unit=time_unit)
    valid = read_validity(table, fields.get("validity"), codes=False)
    xy = read_points(table, fields["x"], fields["y"], valid=valid)
    check_positions(table.path, xy[names != ""], unit)
    xy = xy / (setup.need("screen_size_px") if unit == "px" else POSITION_UNITS[unit])
    return split_by_image(setup, names, time_ms=time_ms, left=xy, right=xy, distance_mm=np.full(len(names), np.nan))


def _csv_fields(table: GazeTable, columns: Mapping[str, str]) -> dict[str, Column]:
    """Find the columns that the caller names, by field; x and y and a time or a duration must be among them."""
    unknown = set(columns) - set(_CSV_FIELDS)
    if unknown:
        raise ValueError(
            f"--gaze_columns: columns names the field {min(unknown)!r}, expected some of {', '.join(_CSV_FIELDS)}."
        )
    fields = {field: _named(table, name) for field, name in columns.items()}
    for field in ("x", "y", *(() if "duration" in fields else ("time",))):
        if field not in fields:
            raise ValueError(f"--gaze_columns: columns does not name the field {field!r}.")
    return fields


def _named(table: GazeTable, name: str) -> Column:
    for column in table.columns:
        if column.name == name:
            return column
    names = ", ".join(column.name for column in table.columns)
    raise ValueError(f"{table.path}: missing column {name!r}; there are {names}.")


def _filter(
    presentations: list[Presentation],
    setup: RecordingSetup,
    find: Callable[..., np.ndarray],
    settings: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    unknown = set(settings) - (set(inspect.signature(find).parameters) - {"samples"})
    if unknown:
        raise ValueError(f"filter_settings has {min(unknown)!r}, which {find.__name__} does not take.")
    count = sum(len(presentation.samples) for presentation in presentations)
    valid = sum(int(presentation.samples.valid.sum()) for presentation in presentations)
    if not valid:
        raise ValueError(f"{setup.path}: none of the {count} gaze samples on an image is valid.")
    if valid < count:
        setup.report(f"{count - valid} of {count} gaze samples are not valid and were left out.")
    by_image: dict[str, list[np.ndarray]] = {}
    for presentation in presentations:
        fixations = find(presentation.samples, **settings)
        fixations[:, :2] = display_to_image(fixations[:, :2], presentation.image_rect_px)
        by_image.setdefault(presentation.image_name, []).append(fixations)
    return {name: np.concatenate(parts) for name, parts in by_image.items()}


def _on_image(fixations: dict[str, np.ndarray], setup: RecordingSetup, *, allow_most: bool) -> dict[str, np.ndarray]:
    """Drop the fixations off their image, or without a position, and report how many; refuse a file of mostly such."""
    inside = {name: rows[((rows[:, :2] >= 0) & (rows[:, :2] <= 1)).all(axis=1)] for name, rows in fixations.items()}
    before, after = (sum(len(rows) for rows in each.values()) for each in (fixations, inside))
    if 2 * after < before and not (after and allow_most):
        count, way = (f"only {after}", " --allow_off_image takes the file.") if after else ("none", "")
        raise ValueError(
            f"{setup.path}: {count} of the {before} fixations lies on its image: is that where --image_rect_px says, "
            "on a screen of --screen_size_px, are positions in another unit, or was the tracker badly calibrated?" + way
        )
    if after < before:
        setup.report(f"{before - after} of {before} fixations lie off the image and were dropped.")
    return inside
