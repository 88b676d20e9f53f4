from pathlib import Path

import numpy as np
import pytest

from clinbundles.transforms.gaze.readers import read_fixations

FOLDER = Path(__file__).parents[3].parent / "shared" / "data" / "gaze" / "tobii_tx300_sdk"
SETUP = {
    "image_name": "polyp.jpg",
    "screen_size_px": (1920, 1080),
    "screen_size_mm": (510, 287),
    "image_rect_px": (480, 270, 960, 540),
}
# Two stays at these fractions of the display are at these fractions of the image in the middle of it.
STAYS = [(0.4, 0.4, 60), (0.6, 0.55, 90)]
ON_IMAGE = [[0.3, 0.3], [0.7, 0.6]]


def write(path, header, row, delimiter="\t", step=8333):
    lines, number = [delimiter.join(header)], 0
    for x, y, n in STAYS:
        for _ in range(n):
            lines.append(delimiter.join(str(value) for value in row(1_000_000 + number * step, x, y, number)))
            number += 1
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def check(fixations):
    np.testing.assert_allclose(fixations["polyp.jpg"][:, :2], ON_IMAGE, atol=1e-3)
    np.testing.assert_allclose(fixations["polyp.jpg"][:, 2], [500, 750], atol=20)


def sdk(path, flag="validity", clock="device_time_stamp", lost=()):
    """Left and right eye lie 0.02 beside the gaze; where the right one is lost, so is its number."""
    header = [clock]
    for eye in ("left", "right"):
        header += [f"{eye}_gaze_point_on_display_area_{axis}" for axis in "xy"]
        header += [f"{eye}_gaze_point_{flag}", f"{eye}_gaze_origin_in_user_coordinate_system_z"]

    def row(time, x, y, number):
        if number in lost:
            return [time, "nan", "nan", 0, "nan", "nan", "nan", 0, "nan"]
        return [time, x - 0.02, y, 1, 600, x + 0.02, y, 1, 610]

    return write(path, header, row, delimiter=",")


@pytest.mark.parametrize("flag", ["validity", "valid"])
@pytest.mark.parametrize("clock", ["device_time_stamp", "system_time_stamp"])
def test_sdk_and_titta_tables_are_read(tmp_path, flag, clock):
    check(read_fixations(sdk(tmp_path / "gaze.csv", flag, clock), **SETUP))


def test_a_short_loss_does_not_split_a_fixation(tmp_path):
    check(read_fixations(sdk(tmp_path / "gaze.csv", lost=(30, 31, 32)), **SETUP))


def test_a_recording_without_a_valid_sample_is_refused(tmp_path):
    path = sdk(tmp_path / "gaze.csv", lost=range(150))
    with pytest.raises(ValueError, match=r"gaze.csv: none of the 150 gaze samples .* is valid"):
        read_fixations(path, viewing_distance_mm=600, **SETUP)


@pytest.mark.parametrize("missing", list(SETUP))
def test_what_the_file_does_not_tell_is_asked_for_by_name(tmp_path, missing):
    rest = {name: value for name, value in SETUP.items() if name != missing}
    with pytest.raises(ValueError, match=f"gaze.csv: the file does not tell {missing}"):
        read_fixations(sdk(tmp_path / "gaze.csv"), **rest)


@pytest.mark.parametrize("clock", ["Time", "RelTimestamp"])
def test_a_tx300_table_is_read_by_either_clock(tmp_path, clock):
    header = [clock]
    for eye in "LR":
        header += [f"{eye}EyePos3dz", f"{eye}GazePos2dx", f"{eye}GazePos2dy", f"{eye}Validity"]

    def row(time, x, y, number):
        # The right eye is lost at times, and then far off.
        right = [0, -1, -1, 4] if number % 7 == 0 else [600, x, y, 0]
        return [time if clock == "Time" else time / 1000, 600, x, y, 0, *right]

    check(read_fixations(write(tmp_path / "1.tsv", header, row), **SETUP))


def test_a_pytrack_table_is_read_without_its_event_rows(tmp_path):
    header = ["Recording timestamp", "Eyetracker timestamp"]
    for eye in ("Left", "Right"):
        header += [f"Gaze2d_{eye}.x", f"Gaze2d_{eye}.y", f"PupilDiam_{eye}", f"Validity_{eye}"]
    header.append("Event value")

    def row(time, x, y, number):
        if number == 20:
            return [time, "", "", "", "", "", "", "", "", "", "start"]
        return [time, time, x, y, 3, 0, x, y, 3, 0, ""]

    check(read_fixations(write(tmp_path / "1.tsv", header, row), viewing_distance_mm=600, **SETUP))


@pytest.mark.parametrize("fixation_filter", ["ivt", "idt"])
@pytest.mark.parametrize("trial", ["participant1/1", "participant1/2", "participant1/4", "participant2/1"])
def test_real_tx300_recordings_give_plausible_fixations(trial, fixation_filter):
    if not FOLDER.is_dir():
        pytest.skip(f"{FOLDER} is not there")
    whole = SETUP | {"image_rect_px": (0, 0, 1920, 1080)}
    settings = {"median_samples": 5} if fixation_filter == "ivt" else {"dispersion_deg": 1.5}
    fixations = read_fixations(
        FOLDER / f"{trial}.tsv", fixation_filter=fixation_filter, filter_settings=settings, **whole
    )["polyp.jpg"]
    lines = (FOLDER / f"{trial}.tsv").read_text(encoding="utf-8").splitlines()
    recorded_ms = float(lines[-1].split()[-1])
    # A noisy second of one trial, broken up by I-DT, is the least: 0.38.
    assert 0.35 < fixations[:, 2].sum() / recorded_ms < 1
    assert 100 < np.median(fixations[:, 2]) < 600
    assert ((fixations[:, :2] >= 0) & (fixations[:, :2] <= 1)).all()
