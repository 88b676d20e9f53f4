import csv
import json
from pathlib import Path

import numpy as np
import pytest

from clinbundles.scripts import cli
from clinbundles.scripts.prepare.datalist import items_of
from clinbundles.scripts.prepare.recordings import gaze_files
from clinbundles.transforms.gaze.attention_map import as_observers

STAYS = [(700, 450, 40), (780, 490, 40), (860, 530, 40)]
ON_IMAGE = [[0.24, 0.38], [0.32, 0.4333], [0.40, 0.4867]]
SIZE_MM = ["--screen_size_mm", "531,299"]
SCREEN = ["--screen_size_px", "1920,1080", *SIZE_MM, "--image_rect_px", "460,165,1000,750"]


def test_gaze_of_two_observers_is_attached_and_images_without_are_counted(plain, capsys, run, gaze):
    content = run(plain, gaze=gaze)
    by_name = {Path(item["image"]).name: item for item in items_of(content)}
    assert by_name["i0.jpg"]["fixations"] == [[[0.25, 0.5, 200], [0.75, 0.5, 100]], [[0.1, 0.2, 300]]]
    assert by_name["i1.jpg"]["fixations"] == [[[0.3, 0.4, 400]]]
    assert by_name["i0.jpg"]["gaze_source"] == "recorded"
    assert "fixations" not in by_name["i2.jpg"]
    assert [rows.shape for rows in as_observers(by_name["i0.jpg"]["fixations"])] == [(2, 3), (1, 3)]
    assert content["gaze"]["source"] == "recorded"
    assert sorted(content["gaze"]["files"]) == ["gaze_1.csv", "gaze_2.csv"]
    assert "recorded gaze of 2 observers; 8 of 10 images have none" in capsys.readouterr().out


def test_gaze_does_not_change_the_split(plain, run, write_gaze):
    without = run(plain)
    gaze = write_gaze(plain.parent / "gaze.csv", [("i0.jpg", 0.25, 0.5, 200)])
    with_gaze = run(plain, gaze=str(gaze))
    assert [i["image"] for i in items_of(without)] == [i["image"] for i in items_of(with_gaze)]
    assert without["data_sha256"] == with_gaze["data_sha256"]


def test_a_gaze_file_that_is_not_there_is_named(plain, run):
    with pytest.raises(FileNotFoundError, match=r"gaze .*none\*\.csv: no such file"):
        run(plain, gaze=str(plain / "none*.csv"))


@pytest.fixture
def gaze(tmp_path, write_gaze):
    """Glob of the recordings of two observers."""
    write_gaze(tmp_path / "gaze_1.csv", [("i0.jpg", 0.25, 0.5, 200), ("i0.jpg", 0.75, 0.5, 100)])
    write_gaze(tmp_path / "gaze_2.csv", [("i0.jpg", 0.1, 0.2, 300), ("i1.jpg", 0.3, 0.4, 400)])
    return str(tmp_path / "gaze_*.csv")


def read(path):
    return json.loads(path.read_text())


def write_samples(path, header, row, shown=("i0.jpg",), *, delimiter=","):
    """A table of samples at 120 Hz with three stays of a third of a second for each screen that is shown."""
    places = [(name, x, y) for name in shown for x, y, count in STAYS for _ in range(count)]
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(row(k, name, x, y) for k, (name, x, y) in enumerate(places))
    return path


def check(fixations, *images, observers=1):
    assert sorted(fixations) == sorted(images)
    for views in fixations.values():
        assert len(views) == observers
        for rows in views:
            np.testing.assert_allclose(np.array(rows)[:, :2], ON_IMAGE, atol=2e-3)
            np.testing.assert_allclose(np.array(rows)[:, 2], 325, atol=20)


def export(path, shown, *, participants=("P1",), millimetres=False):
    """An export of Tobii Pro Lab, one recording after the other."""
    header = ["Recording timestamp [ms]", "Participant name", "Gaze point X [DACS px]", "Gaze point Y [DACS px]"]
    header += ["Gaze point X [DACS mm]", "Gaze point Y [DACS mm]", "Eye position left Z [DACS mm]"] * millimetres
    header += ["Validity left", "Validity right", "Presented Media name", "Recording resolution width"]
    header += ["Recording resolution height", *(f"Presented Media {side} [DACS px]" for side in ("width", "height"))]
    header += [f"Presented Media position {axis} [DACS px]" for axis in "XY"]
    each = len(shown) * sum(count for *_, count in STAYS)

    def row(k, name, x, y):
        lengths = [x * 531 / 1920, y * 299 / 1080, 600] * millimetres
        who = participants[k // each]
        return [k % each * 8.333, who, x, y, *lengths, "Valid", "Valid", name, 1920, 1080, 1000, 750, 460, 165]

    return write_samples(path, header, row, [*shown] * len(participants), delimiter="\t")


def test_gaze_on_other_screens_of_an_export_is_left_out_and_named(add, tmp_path, capsys):
    path = export(tmp_path / "g.tsv", ["Instructions", "i0.jpg", "cross.png", "I1", "i2.JPG"], millimetres=True)
    check(add(path), "i0.jpg", "i1.jpg", "i2.jpg")
    out = capsys.readouterr().out
    assert "g.tsv: gaze on 2 other screens (Instructions, cross.png) was left out." in out
    assert "7 of 10 images have none;" in out
    assert "on none of the 10 images, but on a, b" in add(export(tmp_path / "h.tsv", ["a", "b"], millimetres=True))


def test_an_export_without_millimetres_is_read_with_the_size_of_the_screen(add, tmp_path):
    path = export(tmp_path / "g.tsv", ["i0.jpg", "i1.jpg"])
    assert add(path).endswith(
        "screen_size_mm, viewing_distance_mm: give --screen_size_mm W,H --viewing_distance_mm MM."
    )
    assert add(path, *SIZE_MM).endswith("give --viewing_distance_mm MM.")
    check(add(path, *SIZE_MM, "--viewing_distance_mm", "600"), "i0.jpg", "i1.jpg")


def test_one_participant_of_an_export_can_be_chosen_and_several_are_an_observer_each(add, tmp_path):
    path = export(tmp_path / "g.tsv", ["i0.jpg", "i1.jpg"], participants=("P1", "P2"), millimetres=True)
    assert add(path).endswith("2 different values, expected a single recording: choose by --participant NAME.")
    check(add(path, "--participant", "P2"), "i0.jpg", "i1.jpg")
    check(add(path, "--participant", "P1,P2"), "i0.jpg", "i1.jpg", observers=2)


@pytest.mark.parametrize("chosen", ["P1,P1", "P1, P2, P1", "P1,", ""])
def test_a_participant_that_is_named_twice_or_not_at_all_is_no_observer(add, tmp_path, chosen):
    path = export(tmp_path / "g.tsv", ["i0.jpg"], participants=("P1", "P2"), millimetres=True)
    assert "--participant " in add(path, "--participant", chosen)
    assert "each observer once" in add(path, "--participant", chosen)


def sdk(path):
    header = ["device_time_stamp", "system_time_stamp"]
    for eye in ("left", "right"):
        header += [f"{eye}_gaze_point_on_display_area_x", f"{eye}_gaze_point_on_display_area_y"]
        header += [f"{eye}_gaze_point_validity", f"{eye}_gaze_origin_in_user_coordinate_system_z"]
    return write_samples(path, header, lambda k, _, x, y: [k * 8333, k * 8333, *[x / 1920, y / 1080, 1, 600] * 2])


def tx300(path):
    header = ["RelTimestamp", *(f"{e}{c}" for e in "LR" for c in ("GazePos2dx", "GazePos2dy", "Validity", "EyePos3dz"))]
    return write_samples(path, header, lambda k, _, x, y: [k * 8.333, *[x / 1920, y / 1080, 0, 600] * 2])


def pytrack(path):
    header = ["Recording timestamp"]
    for eye in ("Left", "Right"):
        header += [f"Gaze2d_{eye}.x", f"Gaze2d_{eye}.y", f"Validity_{eye}", f"EyePos3d_{eye}.z"]
    return write_samples(path, header, lambda k, _, x, y: [k * 8333, *[x / 1920, y / 1080, 0, 600] * 2])


@pytest.mark.parametrize("write", [sdk, tx300, pytrack])
def test_tables_that_name_no_image_are_read_with_flags(add, tmp_path, write):
    path = write(tmp_path / "g.csv")
    sentence = add(path)
    assert all(flag in sentence for flag in ("--image_name", "--image_rect_px", "--screen_size_px", "--screen_size_mm"))
    check(add(path, *SCREEN, "--image_name", "i3.jpg"), "i3.jpg")
    assert "gaze on none of the 10 images, but on i99" in add(path, *SCREEN, "--image_name", "i99")


def test_files_of_one_image_each_can_bear_its_name(add, tmp_path):
    (tmp_path / "gaze").mkdir()
    for name in ("i3", "i4"):
        sdk(tmp_path / "gaze" / f"{name}.csv")
    check(add(tmp_path / "gaze" / "*.csv", *SCREEN, "--image_name", "{stem}.jpg"), "i3.jpg", "i4.jpg")


def test_a_csv_in_pixels_is_read_by_the_names_of_its_columns(add, tmp_path):
    path = write_samples(tmp_path / "g.csv", ["X", "Y", "T", "I"], lambda k, n, x, y: [x, y, k / 120, n], ["i0", "i5"])
    assert "--gaze_columns x=NAME" in add(path)
    columns = ["--gaze_columns", "x=X,y=Y,time=T,image=I", "--viewing_distance_mm", "600"]
    check(add(path, *SCREEN, *columns, "--time_unit", "s"), "i0.jpg", "i5.jpg")
    assert "look like pixels, not fractions" in add(path, *SCREEN, *columns, "--position_unit", "fraction")
    assert "--gaze_columns is 'X,Y'" in add(path, *SCREEN, "--gaze_columns", "X,Y")
    assert "missing column 'Z'; there are X, Y, T, I" in add(path, *SCREEN, "--gaze_columns", "x=X,y=Z,time=T")


def test_fixations_in_pixels_are_refused_then_converted(add, tmp_path, write_gaze):
    path = write_gaze(tmp_path / "g.csv", [(f"i{k}.jpg", x, y, 325) for k in range(2) for x, y, _ in STAYS])
    assert "g.csv: 6 of 6 positions lie outside 0 to 1" in add(path)
    check(add(path, "--position_unit", "px", "--image_rect_px", "460,165,1000,750"), "i0.jpg", "i1.jpg")


def test_prepare_takes_the_same_flags(plain, tmp_path, capsys):
    words = ["prepare", "folder", str(plain), str(tmp_path / "o.json"), "--label", "polyp", "--modality", "endoscopy"]
    cli.main([*words, "--gaze", str(sdk(tmp_path / "g.csv")), *SCREEN, "--image_name", "i3"])
    assert "9 of 10 images have none" in capsys.readouterr().out
    items = items_of(read(tmp_path / "o.json"))
    check({Path(i["image"]).name: i["fixations"] for i in items if "fixations" in i}, "i3.jpg")


def test_flags_of_gaze_without_gaze_are_refused():
    with pytest.raises(ValueError, match="--screen_size_mm says how to read gaze: --gaze FILE is missing"):
        gaze_files(None, screen_size_mm=[531, 299])
    assert gaze_files(None) is None


def test_what_is_dropped_is_said_on_screen_and_an_image_left_without_fixation_has_none(
    plain, run, tmp_path, write_gaze, capsys
):
    rows = [("i0.jpg", 0.5, 0.5, 200), ("i0.jpg", 0.4, "", 200), ("i1.jpg", 1.2, 0.5, 200), ("i0.jpg", 0.3, 0.3, 100)]
    content = run(plain, gaze=str(write_gaze(tmp_path / "g.csv", rows)))
    assert [Path(i["image"]).name for i in items_of(content) if "fixations" in i] == ["i0.jpg"]
    out = capsys.readouterr().out
    assert "g.csv: 1 of 4 fixations have an empty field or no positive duration and were dropped." in out
    assert "g.csv: 1 of 3 fixations lie off the image and were dropped." in out
    assert "9 of 10 images have none, 1 of them were shown, but no fixation lies on them" in out


def test_images_that_gaze_cannot_tell_apart_are_refused(gaze):
    with pytest.raises(ValueError, match=r"--gaze names images by file name, and i0\.jpg occurs more than once"):
        gaze_files(gaze).read(["i0.jpg", "i1.jpg", "i0.jpg"])
