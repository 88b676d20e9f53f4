import csv

import numpy as np
import pytest

from clinbundles.transforms.gaze.readers import read_fixations

SETUP = {
    "screen_size_px": (1000, 500),
    "screen_size_mm": (500, 250),
    "viewing_distance_mm": 600,
    "image_rect_px": (0, 0, 1000, 500),
}
STEP = 8333
# Three showings of 60 samples each, at a place of its own; the pause between them belongs to none.
SHOWN = {"a.jpg": (0.2, 0.3), "": (0.9, 0.9), "b.jpg": (0.7, 0.6)}
COLUMNS = {
    "sdk": ("system_time_stamp", "{eye}_gaze_point_on_display_area_x", "{eye}_gaze_point_on_display_area_y"),
    "tx300": ("Time", "{eye}GazePos2dx", "{eye}GazePos2dy"),
    "pytrack": ("Eyetracker timestamp", "Gaze2d_{eye}.x", "Gaze2d_{eye}.y"),
}
EYES = {"sdk": ("left", "right"), "tx300": "LR", "pytrack": ("Left", "Right")}
FLAGS = {"sdk": ("{eye}_gaze_point_validity", 1), "tx300": ("{eye}Validity", 0), "pytrack": ("Validity_{eye}", 0)}


def rows_of(kind="sdk", column=None):
    """Samples of both eyes; a ``column`` names what was shown."""
    clock, *axes = COLUMNS[kind]
    flag, valid = FLAGS[kind]
    names = [name for name in SHOWN for _ in range(60)]
    return [
        {clock: 1_000_000 + k * STEP}
        | {axis.format(eye=e): v for e in EYES[kind] for axis, v in zip(axes, SHOWN[name], strict=True)}
        | {flag.format(eye=e): valid for e in EYES[kind]}
        | ({"Recording timestamp": 1_000_000 + k * STEP} if kind == "pytrack" else {})
        | ({column: name} if column else {})
        for k, name in enumerate(names)
    ]


def write(path, rows):
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def messages(*pairs):
    return [{"system_time_stamp": 1_000_000 + int(k * STEP) - 1, "msg": text} for k, text in pairs]


def check(fixations):
    assert sorted(fixations) == ["a.jpg", "b.jpg"]
    for name, rows in fixations.items():
        np.testing.assert_allclose(rows[:, :2], [SHOWN[name]], atol=1e-6)
        np.testing.assert_allclose(rows[:, 2], 500, atol=20)


@pytest.mark.parametrize("column", ["stimulus", "Image", "Presented Stimulus name"])
@pytest.mark.parametrize("kind", list(COLUMNS))
def test_a_column_of_names_splits_a_file_of_several_images(tmp_path, kind, column):
    path = write(tmp_path / "gaze.csv", rows_of(kind, column))
    check(read_fixations(path, **SETUP))
    check(read_fixations(path, images={"a.jpg", "b.jpg", "c.jpg"}, **SETUP))


def test_messages_of_titta_split_a_file_wherever_they_stand(tmp_path):
    texts = (0, "onset_a.jpg"), (20, "a note"), (60, "offset_a.jpg"), (120, "onset_b.jpg")
    for number, rows in enumerate((rows_of() + messages(*texts), messages(*texts[::-1]) + rows_of())):
        check(read_fixations(write(tmp_path / f"{number}.csv", rows), **SETUP))


def test_an_onset_ends_the_image_before_it(tmp_path):
    path = write(
        tmp_path / "gaze.csv", rows_of() + messages((0, "onset_a.jpg"), (60, "onset_pause"), (120, "onset_b.jpg"))
    )
    check(read_fixations(path, images={"a.jpg", "b.jpg"}, **SETUP))


def test_several_trials_without_names_of_images_are_refused(tmp_path):
    rows = [row | {"Trial": k // 60} for k, row in enumerate(rows_of())]
    path = write(tmp_path / "gaze.csv", rows)
    with pytest.raises(
        ValueError, match=r"gaze\.csv: column 'Trial' has 3 different values, but no column names the im"
    ):
        read_fixations(path, image_name="a.jpg", **SETUP)
    one = write(tmp_path / "one.csv", rows[:60])
    assert list(read_fixations(one, image_name="a.jpg", **SETUP)) == ["a.jpg"]


@pytest.mark.parametrize("rows", [rows_of(column="stimulus"), rows_of() + messages((0, "onset_a.jpg"))])
def test_a_name_for_all_beside_names_in_the_file_is_refused(tmp_path, rows):
    path = write(tmp_path / "gaze.csv", rows)
    with pytest.raises(ValueError, match=r"--image_name is given, but column '(stimulus|msg)' names the images"):
        read_fixations(path, image_name="a.jpg", **SETUP)


def test_a_message_without_a_time_is_refused(tmp_path):
    path = write(tmp_path / "gaze.csv", [*rows_of(), {"msg": "onset_a.jpg"}])
    with pytest.raises(ValueError, match="'system_time_stamp' has an empty field, so that messages cannot be placed"):
        read_fixations(path, **SETUP)
