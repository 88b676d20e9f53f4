from pathlib import Path

import numpy as np
import pytest

from clinbundles.transforms.gaze.fixation_tables import check_positions
from clinbundles.transforms.gaze.readers import read_fixations

HEADER = "image\tCURRENT_FIX_X\tCURRENT_FIX_Y\tCURRENT_FIX_DURATION"
# Three fixations an image at these places of a screen on which the image lay at 460, 165 with 1000 x 750 pixels.
ON_SCREEN = [(530.4, 420.2, 160), (560.4, 440.2, 170), (590.4, 460.2, 180)]
ON_IMAGE = [[0.0704, 0.340267, 160], [0.1004, 0.366933, 170], [0.1304, 0.3936, 180]]
RECT = (460, 165, 1000, 750)


def report_of(path, rows):
    """A fixation report as EyeLink's viewer writes it."""
    lines = [HEADER, *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def pixels(tmp_path):
    return report_of(tmp_path / "report.txt", [(f"f{k}.png", *row) for k in range(3) for row in ON_SCREEN])


def test_pixels_are_not_taken_for_fractions(pixels):
    with pytest.raises(ValueError, match=r"report\.txt: 9 of 9 positions .* look like pixels.*--image_rect_px"):
        read_fixations(pixels)


@pytest.mark.parametrize("unit", ["px", ""])
def test_pixels_become_fractions_where_the_place_of_the_image_is_known(pixels, unit):
    fixations = read_fixations(pixels, image_rect_px=RECT, position_unit=unit)
    assert list(fixations) == ["f0.png", "f1.png", "f2.png"]
    for rows in fixations.values():
        np.testing.assert_allclose(rows, ON_IMAGE, atol=1e-5)


def test_pixels_without_the_place_of_the_image_are_refused(pixels):
    with pytest.raises(ValueError, match=r"does not tell image_rect_px: give --image_rect_px X,Y,W,H"):
        read_fixations(pixels, position_unit="px")


def test_a_place_of_the_image_where_mostly_nobody_looked_is_refused_unless_that_is_so(pixels):
    rect = (560, 450, 400, 300)
    with pytest.raises(ValueError, match=r"only 3 of the 9 fixations lies on its image: .*calibrated\? --allow_off"):
        read_fixations(pixels, image_rect_px=rect)
    assert [len(rows) for rows in read_fixations(pixels, image_rect_px=rect, allow_off_image=True).values()] == [1] * 3


def test_a_place_of_the_image_where_nobody_looked_is_refused(pixels):
    with pytest.raises(ValueError, match=r"none of the 9 fixations lies on its image: .*--image_rect_px"):
        read_fixations(pixels, image_rect_px=(1000, 800, 400, 300))


def test_percentages_are_told_from_fractions_and_read_as_such(tmp_path):
    rows = [("a.png", 25, 50, 200), ("a.png", 75, 12.5, 300)]
    path = report_of(tmp_path / "p.txt", rows)
    with pytest.raises(ValueError, match="look like percent or pixels, not fractions; --position_unit percent"):
        read_fixations(path)
    fixations = read_fixations(path, position_unit="percent")
    np.testing.assert_allclose(fixations["a.png"], [[0.25, 0.5, 200], [0.75, 0.125, 300]])


def points(*xy):
    return np.array(xy, float)


@pytest.mark.parametrize(
    ("xy", "unit"),
    [
        (points(*[(1.2, 0.5)] * 6, *[(0.5, 0.5)] * 4), "fraction"),
        (points(*[(500, 400)] * 2, *[(0.5, 0.5)] * 8), "fraction"),
        (points(*[(-1.5, 0.5)] * 2, *[(0.5, 0.5)] * 8), "fraction"),
        (points((130, 50), (140, 60)), "percent"),
        (points((0.2, 0.3), (0.4, 0.5)), "percent"),
        (points((0.2, 0.3), (0.4, 0.5)), "px"),
    ],
)
def test_positions_of_another_unit_are_refused(xy, unit):
    with pytest.raises(ValueError, match=r"g\.csv: .*look like"):
        check_positions(Path("g.csv"), xy, unit)


@pytest.mark.parametrize(
    ("xy", "unit"),
    [
        (points(*[(1.2, 0.5)] * 4, *[(0.5, 0.5)] * 6), "fraction"),
        (points((500, 400), *[(0.5, 0.5)] * 19), "fraction"),
        (points((0.2, 0.3), (40, 50)), "percent"),
        (points((0, 0), (40, 50)), "px"),
        (points((np.nan, 0.5)), "fraction"),
    ],
)
def test_some_positions_off_the_whole_are_no_other_unit(xy, unit):
    check_positions(Path("g.csv"), xy, unit)


def test_an_odd_fixation_is_dropped_and_counted_and_its_image_kept(tmp_path):
    rows = [
        ("a.png", 0.2, 0.3, 200), ("a.png", 0.4, 0.5, 250), ("a.png", 0.6, 0.7, 300),
        ("b.png", ".", 0.5, 100), ("a.png", 0.5, 0.5, 0), (".", 0.9, 0.9, 100), ("a.png", 0.1, 0.1, -20),
        ("a.png", 0.4, 0.5, 250),
    ]  # fmt: skip
    said = []
    fixations = read_fixations(report_of(tmp_path / "g.txt", rows), report=said.append)
    np.testing.assert_allclose(fixations["a.png"], [row[1:] for row in rows[:3]])
    assert fixations["b.png"].shape == (0, 3)
    assert "." not in fixations
    assert said == [
        "1 rows are the same as an earlier one and were dropped.",
        "3 of 6 fixations have an empty field or no positive duration and were dropped.",
    ]


def test_a_table_of_mostly_odd_fixations_is_refused_with_their_fault(tmp_path):
    rows = [("a.png", 0.2, k / 10, 200 * (k > 2)) for k in range(5)]
    with pytest.raises(ValueError, match="'CURRENT_FIX_DURATION' has a duration of 0 in 3 of 5 fixations: is it"):
        read_fixations(report_of(tmp_path / "g.txt", rows))
    rows = [("a.png", 0.2, k / 10, -200 * (k > 1)) for k in range(5)]
    with pytest.raises(ValueError, match="'CURRENT_FIX_DURATION' has a negative duration in 3 of 5 fixations"):
        read_fixations(report_of(tmp_path / "g.txt", rows))


def test_fixations_alike_in_all_but_another_column_are_no_repetition_and_a_table_of_repetitions_is_refused(tmp_path):
    path = tmp_path / "g.txt"
    lines = [f"{k}\ta.png\t0.2\t0.3\t200" for k in (1, 2)]
    path.write_text("\n".join([f"CURRENT_FIX_INDEX\t{HEADER}", *lines]))
    np.testing.assert_allclose(read_fixations(path)["a.png"], [[0.2, 0.3, 200]] * 2)
    path.write_text("\n".join([f"CURRENT_FIX_INDEX\t{HEADER}", *lines * 3]))
    with pytest.raises(ValueError, match=r"g\.txt: 4 rows are the same as an earlier one, and only 2 are not"):
        read_fixations(path)


def test_durations_in_another_unit_are_refused_until_it_is_told(tmp_path):
    path = report_of(tmp_path / "g.txt", [("a.png", 0.2, 0.3, 0.2), ("a.png", 0.4, 0.5, 0.25)])
    with pytest.raises(ValueError, match=r"median of 0\.225 ms.*--time_unit s"):
        read_fixations(path)
    np.testing.assert_allclose(read_fixations(path, time_unit="s")["a.png"][:, 2], [200, 250])
