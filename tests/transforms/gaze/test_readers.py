import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinbundles.transforms.gaze.readers import FORMATS, detect_format, read_fixations, with_fixations
from clinbundles.transforms.gaze.tables import open_table

WEBCAM = Path(__file__).parents[3].parent / "shared" / "data" / "gaze" / "webcam"
HEADER = (
    "IMAGE,CURRENT_FIX_INDEX,CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION,CURRENT_FIX_PUPIL,CURRENT_FIX_START,"
    "IMAGE_HEIGHT,IMAGE_WIDTH"
)
SETUP = {
    "image_name": "a.jpg",
    "screen_size_px": (1000, 500),
    "screen_size_mm": (500, 250),
    "viewing_distance_mm": 600,
    "image_rect_px": (0, 0, 1000, 500),
}


def write(path, *lines):
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def gazemedseg(path, *fixations):
    """Rows of image name, x, y and duration in the layout of GazeMedSeg."""
    return write(path, HEADER, *(f"{n},{i},{x},{y},{ms},900,0,530,622" for i, (n, x, y, ms) in enumerate(fixations, 1)))


def samples(path, header="x,y,time", *, step=8.333, scale=1.0, more=""):
    stays = [(300, 200)] * 60 + [(700, 300)] * 90
    return write(path, header, *(f"{x * scale},{y * scale},{i * step}{more}" for i, (x, y) in enumerate(stays)))


def check(fixations, name="a.jpg"):
    np.testing.assert_allclose(fixations[name][:, :2], [[0.3, 0.4], [0.7, 0.6]], atol=1e-6)
    np.testing.assert_allclose(fixations[name][:, 2], [500, 750], atol=20)


def test_gazemedseg_fixations_are_kept_as_they_are_in_order_and_by_image(tmp_path):
    rows = [("b.jpg", 0.25, 0.5, 180), ("b.jpg", 0.75, 0.125, 240), ("a.jpg", 1, 0, 60)]
    fixations = read_fixations(gazemedseg(tmp_path / "g.csv", *rows))
    assert list(fixations) == ["b.jpg", "a.jpg"]
    np.testing.assert_array_equal(fixations["b.jpg"], [[0.25, 0.5, 180], [0.75, 0.125, 240]])
    np.testing.assert_array_equal(fixations["a.jpg"], [[1, 0, 60]])
    assert fixations["a.jpg"].dtype == np.float64


def test_fixations_off_the_image_are_dropped_and_counted_without_names(tmp_path, caplog):
    path = gazemedseg(
        tmp_path / "Jane_Doe.csv",
        ("a.jpg", 0.5, 0.5, 100), ("a.jpg", 0.6, 0.5, 100), ("a.jpg", 1.01, 0.5, 100), ("b.jpg", 0.5, -0.1, 100),
    )  # fmt: skip
    with caplog.at_level(logging.INFO):
        fixations = read_fixations(path)
    assert len(fixations["a.jpg"]) == 2
    assert fixations["b.jpg"].shape == (0, 3)
    assert "2 of 4 fixations lie off the image" in caplog.text
    assert "Doe" not in caplog.text
    assert "a.jpg" not in caplog.text


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a.jpg", "left", 0.5, 100), "column 'CURRENT_FIX_X' has 'left', expected a number"),
        (("a.jpg", "", 0.5, 100), "column 'CURRENT_FIX_X' has an empty field"),
        (("a.jpg", 0.5, 0.5, -3), "column 'CURRENT_FIX_DURATION' has a negative duration"),
        (("", 0.5, 0.5, 100), "a row has no image name"),
    ],
)
def test_a_malformed_gazemedseg_row_is_named(tmp_path, row, message):
    with pytest.raises(ValueError, match=f"g.csv: {message}"):
        read_fixations(gazemedseg(tmp_path / "g.csv", row))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1), st.floats(0, 1), st.integers(50, 2000)), min_size=1))
def test_no_fixation_on_an_image_is_lost_or_changed(tmp_path_factory, rows):
    fixations = read_fixations(gazemedseg(tmp_path_factory.mktemp("gaze") / "g.csv", *rows))
    for name in {row[0] for row in rows}:
        np.testing.assert_array_equal(fixations[name], [row[1:] for row in rows if row[0] == name])


def test_a_csv_of_samples_is_known_by_its_plain_names(tmp_path):
    check(read_fixations(samples(tmp_path / "s.csv"), **SETUP))


@pytest.mark.parametrize(("unit", "step"), [("s", 0.008333), ("ms", 8.333), ("us", 8333)])
@pytest.mark.parametrize("told", [True, False])
def test_a_csv_may_count_time_in_any_unit(tmp_path, unit, step, told):
    path = samples(tmp_path / "s.csv", "gx,gy,when", step=step)
    columns = {"x": "gx", "y": "gy", "time": "when"}
    check(read_fixations(path, columns=columns, time_unit=unit if told else "", **SETUP))


def test_a_csv_may_hold_fractions_of_the_display(tmp_path):
    path = write(
        tmp_path / "s.csv", "x,y,time",
        *(f"{x},{y},{i * 8.333}" for i, (x, y) in enumerate([(0.3, 0.4)] * 60 + [(0.7, 0.6)] * 90)),
    )  # fmt: skip
    check(read_fixations(path, position_unit="fraction", **SETUP))


def test_a_csv_may_name_its_images_and_flag_its_samples(tmp_path):
    path = samples(tmp_path / "s.csv", "x,y,time,ok,file", more=",1,c.png")
    text = path.read_text(encoding="utf-8").splitlines()
    text[20:22] = ["9999,9999,158.327,0,c.png", "9999,9999,166.66,0,c.png"]
    write(path, *text)
    columns = {"x": "x", "y": "y", "time": "time", "validity": "ok", "image": "file"}
    setup = {name: value for name, value in SETUP.items() if name != "image_name"}
    check(read_fixations(path, columns=columns, **setup), "c.png")


def test_gaze_on_several_images_of_a_csv_is_never_taken_for_that_on_one(tmp_path):
    rows = [f"{300 + 400 * (i > 60)},200,{i * 8.333},{'ab'[i > 60]}.jpg" for i in range(120)]
    path = write(tmp_path / "s.csv", "x,y,time,stimulus", *rows)
    setup = {name: value for name, value in SETUP.items() if name != "image_name"}
    fixations = read_fixations(path, **setup)
    assert {name: round(rows[0, 0], 2) for name, rows in fixations.items()} == {"a.jpg": 0.3, "b.jpg": 0.7}
    with pytest.raises(ValueError, match="--image_name is given, but column 'stimulus' names the images"):
        read_fixations(path, **SETUP)
    with pytest.raises(ValueError, match="'stimulus' names several images: --gaze_columns image=stimulus tells"):
        read_fixations(path, columns={"x": "x", "y": "y", "time": "time"}, **SETUP)


def test_a_csv_with_durations_is_a_table_of_fixations(tmp_path):
    path = write(tmp_path / "f.csv", "file;px;py;ms", "a.png;60,5;40;200", "b.png;110;90;300")
    columns = {"x": "px", "y": "py", "duration": "ms", "image": "file"}
    fixations = read_fixations(path, columns=columns, image_rect_px=(10, 40, 100, 50))
    np.testing.assert_allclose(fixations["a.png"], [[0.505, 0, 200]])
    np.testing.assert_allclose(fixations["b.png"], [[1, 1, 300]])


def test_a_csv_of_fractions_is_not_taken_for_pixels(tmp_path):
    path = samples(tmp_path / "s.csv", scale=1e-3)
    with pytest.raises(ValueError, match="look like fractions, not pixels: --position_unit fraction"):
        read_fixations(path, **SETUP)


def test_gaze_on_other_screens_is_left_out_and_named(tmp_path):
    stays = [("Intro", 30), ("A", 60), ("cross.png", 20), ("end", 30)]
    names = [name for name, count in stays for _ in range(count)]
    path = write(tmp_path / "s.csv", "x,y,time,file", *(f"300,200,{i * 8.333},{name}" for i, name in enumerate(names)))
    columns = {"x": "x", "y": "y", "time": "time", "image": "file"}
    setup = {name: value for name, value in SETUP.items() if name != "image_name"}
    said = []
    fixations = read_fixations(path, columns=columns, images={"a.jpg", "b.jpg"}, report=said.append, **setup)
    assert list(fixations) == ["a.jpg"]
    np.testing.assert_allclose(fixations["a.jpg"][:, :2], [[0.3, 0.4]], atol=1e-6)
    assert said == ["gaze on 3 other screens (Intro, cross.png, ...) was left out."]
    with pytest.raises(ValueError, match=r"s\.csv: gaze on none of the 1 images, but on Intro, A, \.\.\."):
        read_fixations(path, columns=columns, images={"z.jpg"}, **setup)


@pytest.mark.parametrize("title", ["Subject_ID", "participant", "who"])
def test_one_of_several_participants_of_a_csv_is_chosen_and_they_are_never_mixed(tmp_path, title):
    rows = [f"{who},60,{40 + k},{200 + k},a.png" for who in ("ann", "bo") for k in range(2 + (who == "bo"))]
    path = write(tmp_path / "f.csv", f"{title},px,py,ms,file", *rows)
    columns = {"x": "px", "y": "py", "duration": "ms", "image": "file"}
    columns |= {"participant": "who"} if title == "who" else {}
    with pytest.raises(ValueError, match=f"column '{title}' has 2 different values.*choose by --participant NAME"):
        read_fixations(path, columns=columns, image_rect_px=(0, 0, 100, 50))
    fixations = read_fixations(path, columns=columns, image_rect_px=(0, 0, 100, 50), participant="bo")
    np.testing.assert_allclose(fixations["a.png"][:, 2], [200, 201, 202])


def test_the_dispersion_filter_and_its_settings_can_be_chosen(tmp_path):
    path = samples(tmp_path / "s.csv")
    check(read_fixations(path, fixation_filter="idt", **SETUP))
    (only,) = read_fixations(path, filter_settings={"min_duration_ms": 600}, **SETUP).values()
    assert len(only) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gaze_format": "eyelink"}, "gaze_format is 'eyelink', expected auto or one of gazemedseg"),
        ({"fixation_filter": "hmm"}, "fixation_filter is 'hmm', expected one of ivt, idt"),
        ({"filter_settings": {"speed": 3}}, "filter_settings has 'speed', which ivt_fixations does not take"),
        ({"columns": {"x": "x", "y": "y"}}, "columns does not name the field 'time'"),
        ({"columns": {"x": "x", "y": "why", "time": "time"}}, "s.csv: missing column 'why'"),
        ({"columns": {"x": "x", "z": "y"}}, "columns names the field 'z'"),
        ({"position_unit": "cm"}, "position_unit is 'cm'"),
        ({"time_unit": "h"}, "has the unit 'h'"),
        ({"use_exported_fixations": True}, "s.csv: --use_exported_fixations is for files of format tobii_export"),
        ({"participant": "P1"}, "s.csv: no column of participants has the --participant P1"),
        ({"position_unit": "fraction"}, "s.csv: 150 of 150 positions .* look like pixels, not fractions"),
    ],
)
def test_a_wrong_argument_is_named(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        read_fixations(samples(tmp_path / "s.csv"), **SETUP, **wrong)


def test_an_unknown_header_lists_what_was_tried_and_none_of_its_content(tmp_path):
    path = write(tmp_path / "s.txt", "Jane Doe 1 2 3", "4 5 6 7 8")
    with pytest.raises(ValueError, match=r"s.txt: the header, 1 column\(s\)") as caught:
        read_fixations(path)
    assert all(name in str(caught.value) for name in FORMATS)
    assert "Doe" not in str(caught.value)


def test_the_header_tells_the_format_without_reading_a_row(tmp_path):
    assert detect_format(open_table(write(tmp_path / "g.csv", HEADER))) == "gazemedseg"


def test_real_webcam_gaze_is_read_between_its_comments(caplog):
    files = sorted(WEBCAM.glob("*.csv"))
    if not files:
        pytest.skip(f"{WEBCAM} is not there")
    for path in files:
        fixations = read_fixations(
            path,
            columns={"x": "gaze_x", "y": "gaze_y", "time": "timestamp_ms"},
            fixation_filter="idt",
            filter_settings={"dispersion_deg": 3.0, "max_gap_ms": 150},
            image_name="targets.png",
            screen_size_px=(1600, 902),
            screen_size_mm=(344, 194),
            viewing_distance_mm=550,
            image_rect_px=(0, 0, 1600, 902),
            allow_off_image="pursuit" in path.stem,  # of a badly calibrated one a third
        )["targets.png"]
        assert len(fixations) > 20
        assert (fixations[:, 2] >= 99).all()


def test_fixations_go_to_the_item_of_their_image_and_the_items_stay_as_they_were(tmp_path):
    recording = gazemedseg(tmp_path / "g.csv", ("b.png", 0.25, 0.5, 200), ("z.png", 0.5, 0.5, 100))
    items = [{"image": "/frames/a.jpg"}, {"image": "/frames/b.png", "label": "/masks/b.png"}]
    first, second = with_fixations(items, gaze_file=recording)
    assert first == items[0]
    assert second == {**items[1], "fixations": [[[0.25, 0.5, 200.0]]], "original_size": [530, 622]}
    assert "fixations" not in items[1]


def test_what_a_recording_does_not_tell_is_said_by_settings(tmp_path):
    recording = samples(tmp_path / "s.csv")
    with pytest.raises(ValueError, match=r"does not tell image_name.* entries of gaze_settings\."):
        with_fixations([{"image": "/frames/a.jpg"}], gaze_file=recording)
    (item,) = with_fixations([{"image": "/frames/a.jpg"}], gaze_file=recording, gaze_settings=SETUP)
    check({"a.jpg": np.array(item["fixations"][0])})
    with pytest.raises(ValueError, match="gaze_settings has 'report', which read_fixations does not take"):
        with_fixations([{"image": "/frames/a.jpg"}], gaze_file=recording, gaze_settings={"report": 1})


def test_without_a_recording_no_item_has_fixations():
    assert with_fixations([{"image": "a.jpg"}], gaze_file=None) == [{"image": "a.jpg"}]


def test_an_image_without_a_fixation_on_it_is_one_without_gaze(tmp_path):
    recording = gazemedseg(tmp_path / "g.csv", ("a.png", 0.25, 0.5, 200), ("b.png", 1.5, 0.5, 100))
    first, second = with_fixations([{"image": "/frames/a.png"}, {"image": "/frames/b.png"}], gaze_file=recording)
    assert "fixations" in first
    assert second == {"image": "/frames/b.png"}


def test_gaze_on_a_name_that_two_images_have_is_refused(tmp_path):
    recording = gazemedseg(tmp_path / "g.csv", ("1.png", 0.25, 0.5, 200))
    items = [{"image": f"/frames/{name}"} for name in ("p1/1.png", "p2/1.png", "p1/2.png", "p2/2.png")]
    with pytest.raises(ValueError, match=r"g\.csv: its gaze on 1\.png fits both .*p1/1\.png and .*p2/1\.png"):
        with_fixations(items, gaze_file=recording)
    first, *others = with_fixations([items[0], *items[2:]], gaze_file=recording)
    assert "fixations" in first
    assert not any("fixations" in item for item in others)


def test_a_recording_of_other_images_is_refused_by_name(tmp_path):
    recording = gazemedseg(tmp_path / "g.csv", ("z.png", 0.5, 0.5, 100))
    with pytest.raises(ValueError, match=r"g\.csv: gaze on none of the 2 images, but on z\.png\."):
        with_fixations([{"image": "/frames/a.jpg"}, {"image": "/frames/b.png"}], gaze_file=recording)
