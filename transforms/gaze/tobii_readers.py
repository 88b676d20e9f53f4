"""Readers of what Tobii's development kits write, a line per sample: Pro SDK and Titta, the old TX300 SDK, PyTrack."""

from __future__ import annotations

import warnings

import numpy as np

from .recordings import Presentation, RecordingSetup, read_points, read_time_ms, read_validity
from .tables import GazeTable

SDK_SIGNATURE = frozenset(f"{eye}_gaze_point_on_display_area_x" for eye in ("left", "right"))
TX300_SIGNATURE = frozenset({"lgazepos2dx", "rgazepos2dx", "lvalidity", "rvalidity"})
PYTRACK_SIGNATURE = frozenset({"gaze2d_left.x", "gaze2d_right.x"})


def read_tobii_sdk(table: GazeTable, setup: RecordingSetup) -> list[Presentation]:
    """Tobii Pro SDK or Titta table (gaze in fractions of the display, time in microseconds) in, one presentation out.

    Validity is ``..._gaze_point_validity`` or, in newer Titta files, ``..._gaze_point_valid``. The distance is how far
    the eyes are in front of the tracker (z of the gaze origin), if the caller gives none.

    Raises:
        ValueError: a column is missing or malformed, or the setup lacks what the file does not tell.
    """
    stems = {"device_time_stamp", "system_time_stamp", *SDK_SIGNATURE}
    for eye in ("left", "right"):
        stems |= {f"{eye}_gaze_point_on_display_area_y", f"{eye}_gaze_point_validity", f"{eye}_gaze_point_valid"}
        stems.add(f"{eye}_gaze_origin_in_user_coordinate_system_z")
    table.load(frozenset(stems))
    eyes, distances = [], []
    for eye in ("left", "right"):
        valid = table.need(f"{eye}_gaze_point_validity", f"{eye}_gaze_point_valid")
        x, y = (table.need(f"{eye}_gaze_point_on_display_area_{axis}") for axis in "xy")
        eyes.append(read_points(table, x, y, valid=read_validity(table, valid, codes=False)))
        distances.append(eye_distance(table, f"{eye}_gaze_origin_in_user_coordinate_system_z"))
    time_ms = read_time_ms(table, table.need("device_time_stamp", "system_time_stamp"), unit="us")
    return setup.from_display_fractions(
        time_ms=time_ms, left=eyes[0], right=eyes[1], distance_mm=mean_of_known(*distances)
    )


def read_tx300(table: GazeTable, setup: RecordingSetup) -> list[Presentation]:
    """Table of the old SDK as recorded with a TX300 (gaze in fractions, validity 0 to 4) in, one presentation out.

    ``RelTimestamp`` is in milliseconds, ``Time`` in microseconds. Validity above 1 is missing, as is a gaze of -1, -1.

    Raises:
        ValueError: a column is missing or malformed, or the setup lacks what the file does not tell.
    """
    stems = {"time", "reltimestamp", *TX300_SIGNATURE}
    table.load(frozenset(stems | {f"{eye}gazepos2dy" for eye in "lr"} | {f"{eye}eyepos3dz" for eye in "lr"}))
    eyes, distances = [], []
    for eye in "lr":
        valid = read_validity(table, table.need(f"{eye}validity"), codes=True)
        xy = read_points(table, table.need(f"{eye}gazepos2dx"), table.need(f"{eye}gazepos2dy"), valid=valid)
        eyes.append(np.where((xy == -1).all(axis=1, keepdims=True), np.nan, xy))
        distances.append(eye_distance(table, f"{eye}eyepos3dz"))
    time = table.need("reltimestamp", "time")
    time_ms = read_time_ms(table, time, unit="ms" if time.stem == "reltimestamp" else "us")
    return setup.from_display_fractions(
        time_ms=time_ms, left=eyes[0], right=eyes[1], distance_mm=mean_of_known(*distances)
    )


def read_pytrack(table: GazeTable, setup: RecordingSetup) -> list[Presentation]:
    """Table with PyTrack's column names (``Gaze2d_Left.x``, fractions of the display) in, one presentation out.

    Rows without validity are events and are left out.

    Raises:
        ValueError: a column is missing or malformed, or the setup lacks what the file does not tell.
    """
    stems = {"recordingtimestamp", "eyetrackertimestamp"}
    for eye in ("left", "right"):
        stems |= {f"gaze2d_{eye}.x", f"gaze2d_{eye}.y", f"validity_{eye}", f"eyepos3d_{eye}.z"}
    table.load(frozenset(stems))
    flags = [table.need(f"validity_{eye}") for eye in ("left", "right")]
    table.keep((table.text(flags[0]) != "") | (table.text(flags[1]) != ""))
    eyes, distances = [], []
    for eye, flag in zip(("left", "right"), flags, strict=True):
        valid = read_validity(table, flag, codes=True)
        x, y = (table.need(f"gaze2d_{eye}.{axis}") for axis in "xy")
        eyes.append(read_points(table, x, y, valid=valid))
        distances.append(eye_distance(table, f"eyepos3d_{eye}.z"))
    time_ms = read_time_ms(table, table.need("eyetrackertimestamp", "recordingtimestamp"))
    return setup.from_display_fractions(
        time_ms=time_ms, left=eyes[0], right=eyes[1], distance_mm=mean_of_known(*distances)
    )


def eye_distance(table: GazeTable, *stems: str) -> np.ndarray:
    """Column of distances in millimetres in, (n,) out; NaN where there is no such column or no positive number."""
    column = table.find(*stems, units=("", "mm", "dacsmm", "adcsmm"))
    if column is None:
        return np.full(len(table.rows), np.nan)
    values = table.numbers(column)
    return np.where(values > 0, values, np.nan)


def mean_of_known(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two arrays (n,) with NaN for missing in, their mean (n,) over what is known out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # both missing: NaN is the answer
        return np.nanmean([left, right], axis=0)
