"""Readers of Tobii recordings: exports of Studio 3.x and Pro Lab, and the tables of SDK, Titta, TX300 and PyTrack."""

from __future__ import annotations

import re
import warnings

import numpy as np

from .participants import PARTICIPANT_STEMS, choose_participant
from .samples import Display, Presentation, RecordingSetup, average_eyes
from .stimulus_events import EVENT_STEMS, shown_images, split_by_image
from .tables import GazeTable, read_points, read_time_ms, read_validity

SDK_SIGNATURE = frozenset(f"{eye}_gaze_point_on_display_area_x" for eye in ("left", "right"))
TX300_SIGNATURE = frozenset({"lgazepos2dx", "rgazepos2dx", "lvalidity", "rvalidity"})
PYTRACK_SIGNATURE = frozenset({"gaze2d_left.x", "gaze2d_right.x"})
_PIXELS = ("dacspx", "adcspx", "px", "")
_MILLIMETRES = ("dacsmm", "adcsmm")
_MEDIA = ("mcsnorm", "mcspx")
_ALL = slice(None)
_NAME = ("presentedmedianame", "medianame", "presentedstimulusname")
_GAZE = ("gazepointleft", "gazepointright", "gazepoint")
_RECT = (
    ("presentedmediapositionx", "mediaposx"),
    ("presentedmediapositiony", "mediaposy"),
    ("presentedmediawidth", "mediawidth"),
    ("presentedmediaheight", "mediaheight"),
)
_STEMS = frozenset(
    {"recordingtimestamp", "sensor", "recordingresolution", *PARTICIPANT_STEMS, *_NAME, *sum(_RECT, ())}
    | {f"recordingresolution{side}" for side in ("width", "height")}
    | {f"originalmedia{side}" for side in ("width", "height")}
    | {f"{point}{axis}" for point in (*_GAZE, "fixationpoint") for axis in "xy"}
    | {f"{stem}{eye}" for stem in ("validity", "distance") for eye in ("left", "right")}
    | {f"{stem}{eye}z" for stem in ("eyeposition", "eyepos") for eye in ("left", "right")}
    | {"eyemovementtype", "gazeeventtype", "eyemovementtypeindex", "fixationindex"}
    | {"gazeeventduration", "eyemovementeventduration"}
)


def is_tobii_export(stems: frozenset[str]) -> bool:
    """True if a header with these stems is one of Tobii Studio or Pro Lab."""
    return "recordingtimestamp" in stems and any(f"{point}x" in stems for point in (*_GAZE, "fixationpoint"))


def read_tobii_export(table: GazeTable, setup: RecordingSetup) -> list[Presentation]:
    """Read the presentations of an export of one recording, one per uninterrupted showing of an image.

    Gaze is taken from the columns in display pixels, else from millimetres (Pro Lab's from the top left, Studio's from
    the bottom left of the display), else from fractions or pixels of the shown media. Rows of other sensors, event rows
    and rows without a stimulus are left out. The size of the display in millimetres and the viewing distance come from
    the file where it has millimetres and eye positions.

    Raises:
        ValueError: a column is missing or malformed, or the setup lacks what the file does not tell.
    """
    names = _load(table, setup)
    time_ms = read_time_ms(table, table.need("recordingtimestamp", units=("ms", "us", "s", "")))
    rects = _image_rects(table, setup, names)
    eyes = [eye_distance(table, f"eyeposition{eye}z", f"eyepos{eye}z", f"distance{eye}") for eye in ("left", "right")]
    measured = mean_distance(*eyes)
    display = _display(table, setup, has_distance=bool(np.isfinite(measured).any()))
    distance_mm = setup.distances_mm(measured)
    xy_px = _gaze_px(table, display, rects)
    changes = np.flatnonzero((names[1:] != names[:-1]) | _differ(rects[1:], rects[:-1])) + 1
    presentations = []
    for rows in np.split(np.arange(len(names)), changes):
        if names[rows[0]] == "":
            continue
        x, y, width, height = (float(value) for value in rects[rows[0]])
        if not (width > 0 and height > 0 and np.isfinite([x, y]).all()):
            raise ValueError(
                f"{table.path}: the image has the position {x:g}, {y:g} and size {width:g} x {height:g} on the display "
                f"at {time_ms[rows[0]]:g} ms: give --image_rect_px X,Y,W,H."
            )
        samples = setup.samples(
            time_ms=time_ms[rows], xy_px=xy_px[rows], distance_mm=distance_mm[rows], display=display
        )
        presentations.append(
            Presentation(image_name=names[rows[0]], samples=samples, image_rect_px=(x, y, width, height))
        )
    return presentations


def read_exported_fixations(table: GazeTable, setup: RecordingSetup) -> dict[str, np.ndarray]:
    """Read Tobii's own fixations from an export, by image name: (m, 3) of x and y as fractions, and ms.

    A fixation counts for the image that was shown when it began. Off the image, Tobii gives no point: x and y are NaN.

    Raises:
        ValueError: a column is missing or malformed.
    """
    names = _load(table, setup)
    kind = table.text(table.need("eyemovementtype", "gazeeventtype"))
    index = table.numbers(table.need("eyemovementtypeindex", "fixationindex"))
    column = table.need("gazeeventduration", "eyemovementeventduration", units=("ms", "us", ""))
    duration = table.numbers(column)
    in_fixation = np.array([value.lower() == "fixation" for value in kind]) & np.isfinite(index)
    _, first = np.unique(np.where(in_fixation, index, np.nan), return_index=True)
    first = np.sort(first[in_fixation[first]])
    first = first[names[first] != ""]
    has_duration = duration[first] > 0
    if not has_duration.all():
        lost = int((~has_duration).sum())
        if 2 * lost > len(first):
            raise ValueError(
                f"{table.path}: column {column.name!r} gives {lost} of {len(first)} fixations no duration."
            )
        setup.report(f"{lost} of {len(first)} fixations have no duration and were dropped.")
        first = first[has_duration]
    # No fixation lasts ten seconds, and none is counted in single microseconds.
    if column.unit == "us" or (not column.unit and len(first) and np.median(duration[first]) > 10_000):
        duration = duration / 1000
    xy = _fixation_points(table, setup, names)
    by_image = {name: first[names[first] == name] for name in dict.fromkeys(names) if name}
    return {name: np.column_stack([xy[rows], duration[rows]]) for name, rows in by_image.items()}


def _load(table: GazeTable, setup: RecordingSetup) -> np.ndarray:
    """Read the rows of the eye tracker, and return the image name (n,) of each, empty where none was shown."""
    table.load(_STEMS)
    sensor = table.find("sensor")
    if sensor is not None:
        is_tracker = table.text(sensor) == "Eye Tracker"
        if not is_tracker.any():
            raise ValueError(f"{table.path}: column 'Sensor' has no row 'Eye Tracker'.")
        table.keep(is_tracker)
    validity = [column for eye in ("left", "right") if (column := table.find(f"validity{eye}")) is not None]
    if validity:
        has_gaze = np.any([table.text(column) != "" for column in validity], axis=0)
        if not has_gaze.any():
            raise ValueError(f"{table.path}: column {validity[0].name!r} is empty, there are no gaze samples.")
        table.keep(has_gaze)
    choose_participant(table, setup.participant)  # rows of a mouse need no name
    column = table.find(*_NAME)
    if column is None:
        return setup.on_images(np.full(len(table.rows), setup.need("image_name")[0], object))
    if setup.image_name is not None:
        raise ValueError(f"{table.path}: --image_name is given, but column {column.name!r} names the images.")
    return setup.on_images(table.text(column))


def _differ(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return ~((a == b) | (np.isnan(a) & np.isnan(b))).all(axis=1)


def _display(table: GazeTable, setup: RecordingSetup, *, has_distance: bool) -> Display:
    """Find the size of the display; where the file does not tell it, ask for the distance along with it."""
    size_px, size_mm = setup.screen_size_px, setup.screen_size_mm
    sides = [table.find(f"recordingresolution{side}", units=("", "px")) for side in ("width", "height")]
    text = table.find("recordingresolution")
    if size_px is None and all(sides):
        size_px = [float(np.nanmax(table.numbers(side))) for side in sides if side]
    elif size_px is None and text is not None:
        match = re.fullmatch(r"(\d+)\s*x\s*(\d+)", table.text(text)[0])
        if not match:
            raise ValueError(f"{table.path}: column {text.name!r} has {table.text(text)[0]!r}, expected '1920 x 1080'.")
        size_px = [float(side) for side in match.groups()]
    size_px = setup.need("screen_size_px") if size_px is None else size_px
    if size_mm is None:
        lines = [_gaze_line(table, axis, _PIXELS, _MILLIMETRES) for axis in "xy"]
        sides_mm = [abs(line[0]) * size for line, size in zip(lines, size_px, strict=True) if line]
        if len(sides_mm) < 2:
            setup.require("screen_size_mm", *(() if has_distance else ("viewing_distance_mm",)))
        size_mm = sides_mm
    return Display(size_px=(size_px[0], size_px[1]), size_mm=(size_mm[0], size_mm[1]))


def _gaze_line(
    table: GazeTable, axis: str, x_units: tuple[str, ...], y_units: tuple[str, ...], rows: np.ndarray | slice = _ALL
) -> tuple[float, float] | None:
    """Fit the gaze in ``y_units`` as a straight line over the gaze in ``x_units``: slope and offset, or None."""
    for point in _GAZE:
        x, y = (table.find(f"{point}{axis}", units=units) for units in (x_units, y_units))
        if x is None or y is None:
            continue
        pairs = np.column_stack([table.numbers(x), table.numbers(y)])[rows]
        pairs = pairs[np.isfinite(pairs).all(axis=1)]
        if len(pairs) > 1 and (np.ptp(pairs, axis=0) > 0).all():
            slope, offset = np.polyfit(pairs[:, 0], pairs[:, 1], 1)
            return float(slope), float(offset)
    return None


def _image_rects(table: GazeTable, setup: RecordingSetup, names: np.ndarray) -> np.ndarray:
    """Return where the image was on the display, (n, 4) in pixels, NaN where there was none."""
    if setup.image_rect_px is not None:
        return np.tile(np.asarray(setup.image_rect_px, float), (len(names), 1))
    columns = [table.find(*stems, units=_PIXELS) for stems in _RECT]
    if all(columns):
        return np.column_stack([table.numbers(column) for column in columns if column])
    rects = np.full((len(names), 4), np.nan)
    for name in set(names) - {""}:
        rows = names == name
        for side, axis in enumerate("xy"):
            line = _gaze_line(table, axis, ("mcsnorm",), _PIXELS, rows)
            if line is None:
                setup.need("image_rect_px")
            else:
                rects[rows, side + 2], rects[rows, side] = line
    return rects


def _gaze_px(table: GazeTable, display: Display, rects: np.ndarray) -> np.ndarray:
    """Return the mean gaze of both eyes (n, 2) in display pixels, NaN where missing."""
    valid = [read_validity(table, table.find(f"validity{eye}"), codes=True) for eye in ("left", "right")]
    if {"gazepointleftx", "gazepointrightx"} <= table.stems:
        points = [f"gazepoint{eye}" for eye in ("left", "right")]
        left, right = (_point_px(table, p, v, display, rects) for p, v in zip(points, valid, strict=True))
        return average_eyes(left, right)
    return _point_px(table, "gazepoint", valid[0] | valid[1], display, rects)


def _point_px(table: GazeTable, point: str, valid: np.ndarray, display: Display, rects: np.ndarray) -> np.ndarray:
    x = table.need(f"{point}x", units=(*_PIXELS, *_MILLIMETRES, *_MEDIA))
    xy = read_points(table, x, table.need(f"{point}y", units=(x.unit,)), valid=valid)
    if x.unit in _MILLIMETRES:
        xy = xy / display.mm_per_px
        if x.unit == "adcsmm":
            xy[:, 1] = display.size_px[1] - xy[:, 1]
    elif x.unit in _MEDIA:
        xy = rects[:, :2] + (xy if x.unit == "mcsnorm" else xy / _media_size(table, rects)) * rects[:, 2:]
    return xy


def _media_size(table: GazeTable, rects: np.ndarray) -> np.ndarray:
    """Return width and height (n, 2) of the image in its own pixels, or as on the display if the file is silent."""
    sides = [table.find(f"originalmedia{side}", units=("", "px")) for side in ("width", "height")]
    return np.column_stack([table.numbers(side) for side in sides if side]) if all(sides) else rects[:, 2:]


def _fixation_points(table: GazeTable, setup: RecordingSetup, names: np.ndarray) -> np.ndarray:
    """Return Tobii's fixation points (n, 2) in fractions of the image, NaN where missing."""
    x = table.need("fixationpointx", units=("mcsnorm", "mcspx", *_PIXELS))
    y = table.need("fixationpointy", units=(x.unit,))
    xy = read_points(table, x, y, valid=np.ones(len(names), bool))
    if x.unit == "mcsnorm":
        return xy
    rects = _image_rects(table, setup, names)
    if x.unit == "mcspx":
        return xy / _media_size(table, rects)
    return (xy - rects[:, :2]) / rects[:, 2:]


def read_tobii_sdk(table: GazeTable, setup: RecordingSetup) -> list[Presentation]:
    """Read the presentations of a Tobii Pro SDK or Titta table, one of the caller's image where it names none.

    Gaze is in fractions of the display, time in microseconds. Validity is ``..._gaze_point_validity`` or, in newer
    Titta files, ``..._gaze_point_valid``. The distance is how far the eyes are in front of the tracker (z of the gaze
    origin), if the caller gives none.

    Raises:
        ValueError: a column is missing or malformed, or the setup lacks what the file does not tell.
    """
    stems = {"device_time_stamp", "system_time_stamp", *SDK_SIGNATURE}
    for eye in ("left", "right"):
        stems |= {f"{eye}_gaze_point_on_display_area_y", f"{eye}_gaze_point_validity", f"{eye}_gaze_point_valid"}
        stems.add(f"{eye}_gaze_origin_in_user_coordinate_system_z")
    table.load(frozenset(stems) | EVENT_STEMS | PARTICIPANT_STEMS)
    choose_participant(table, setup.participant)
    names = shown_images(table, setup)
    eyes, distances = [], []
    for eye in ("left", "right"):
        valid = table.need(f"{eye}_gaze_point_validity", f"{eye}_gaze_point_valid")
        x, y = (table.need(f"{eye}_gaze_point_on_display_area_{axis}") for axis in "xy")
        eyes.append(read_points(table, x, y, valid=read_validity(table, valid, codes=False)))
        distances.append(eye_distance(table, f"{eye}_gaze_origin_in_user_coordinate_system_z"))
    time_ms = read_time_ms(table, table.need("device_time_stamp", "system_time_stamp"), unit="us")
    return split_by_image(
        setup, names, time_ms=time_ms, left=eyes[0], right=eyes[1], distance_mm=mean_distance(*distances)
    )


def read_tx300(table: GazeTable, setup: RecordingSetup) -> list[Presentation]:
    """Read the presentations of a table of the old SDK, as recorded with a TX300, one where it names no image.

    Gaze is in fractions of the display, ``RelTimestamp`` in milliseconds, ``Time`` in microseconds. Validity above 1 is
    missing, as is a gaze of -1, -1.

    Raises:
        ValueError: a column is missing or malformed, or the setup lacks what the file does not tell.
    """
    stems = {"time", "reltimestamp", *TX300_SIGNATURE}
    stems |= {f"{eye}gazepos2dy" for eye in "lr"} | {f"{eye}eyepos3dz" for eye in "lr"}
    table.load(frozenset(stems) | EVENT_STEMS | PARTICIPANT_STEMS)
    choose_participant(table, setup.participant)
    names = shown_images(table, setup)
    eyes, distances = [], []
    for eye in "lr":
        valid = read_validity(table, table.need(f"{eye}validity"), codes=True)
        xy = read_points(table, table.need(f"{eye}gazepos2dx"), table.need(f"{eye}gazepos2dy"), valid=valid)
        eyes.append(np.where((xy == -1).all(axis=1, keepdims=True), np.nan, xy))
        distances.append(eye_distance(table, f"{eye}eyepos3dz"))
    time = table.need("reltimestamp", "time")
    time_ms = read_time_ms(table, time, unit="ms" if time.stem == "reltimestamp" else "us")
    return split_by_image(
        setup, names, time_ms=time_ms, left=eyes[0], right=eyes[1], distance_mm=mean_distance(*distances)
    )


def read_pytrack(table: GazeTable, setup: RecordingSetup) -> list[Presentation]:
    """Read the presentations of a table with PyTrack's column names, such as ``Gaze2d_Left.x``, one without names.

    Gaze is in fractions of the display. Rows without validity are events and are left out.

    Raises:
        ValueError: a column is missing or malformed, or the setup lacks what the file does not tell.
    """
    stems = {"recordingtimestamp", "eyetrackertimestamp"}
    for eye in ("left", "right"):
        stems |= {f"gaze2d_{eye}.x", f"gaze2d_{eye}.y", f"validity_{eye}", f"eyepos3d_{eye}.z"}
    table.load(frozenset(stems) | EVENT_STEMS | PARTICIPANT_STEMS)
    choose_participant(table, setup.participant)
    flags = [table.need(f"validity_{eye}") for eye in ("left", "right")]
    table.keep((table.text(flags[0]) != "") | (table.text(flags[1]) != ""))
    names = shown_images(table, setup)
    eyes, distances = [], []
    for eye, flag in zip(("left", "right"), flags, strict=True):
        valid = read_validity(table, flag, codes=True)
        x, y = (table.need(f"gaze2d_{eye}.{axis}") for axis in "xy")
        eyes.append(read_points(table, x, y, valid=valid))
        distances.append(eye_distance(table, f"eyepos3d_{eye}.z"))
    time_ms = read_time_ms(table, table.need("eyetrackertimestamp", "recordingtimestamp"))
    return split_by_image(
        setup, names, time_ms=time_ms, left=eyes[0], right=eyes[1], distance_mm=mean_distance(*distances)
    )


def eye_distance(table: GazeTable, *stems: str) -> np.ndarray:
    """Read distances (n,) in millimetres, NaN where there is no such column or no positive number."""
    column = table.find(*stems, units=("", "mm", "dacsmm", "adcsmm"))
    if column is None:
        return np.full(len(table.rows), np.nan)
    values = table.numbers(column)
    return np.where(values > 0, values, np.nan)


def mean_distance(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Average the distances (n,) of both eyes, or take that of one where the other is NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # both missing: NaN is the answer
        return np.nanmean([left, right], axis=0)
