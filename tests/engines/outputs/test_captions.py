import numpy as np

from clinbundles.engines.outputs.captions import LINE_PX, slice_positions, with_legend, with_text

COLORS = [("body", (0, 114, 178)), ("left lung", (230, 159, 0))]


def colors_in(picture: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}


def test_slices_are_named_by_their_height_from_the_feet_whichever_way_the_array_runs() -> None:
    affine = np.diag([1.0, 1.0, -5.0, 1.0])
    affine[2, 3] = -100
    assert slice_positions(affine, (9, 9, 3), axis=2) == ["z -110 mm", "z -105 mm", "z -100 mm"]
    coronal = np.array([[1.0, 0, 0, 0], [0, 0, 2, 0], [0, 3, 0, 7], [0, 0, 0, 1]])
    assert slice_positions(coronal, (1, 2, 1), axis=1) == ["z 7 mm", "z 10 mm"]


def test_the_place_of_a_tilted_slice_is_that_of_its_middle_and_thin_slices_differ() -> None:
    tilted = np.diag([0.8, 0.8, 0.5, 1.0])
    tilted[2, 1] = 0.01
    assert slice_positions(tilted, (101, 101, 3), axis=2) == ["z 0.5 mm", "z 1.0 mm", "z 1.5 mm"]
    assert slice_positions(np.diag([1.0, 1.0, -2.0, 1.0]), (3, 3, 2), axis=2) == ["z -2 mm", "z 0 mm"]


def test_a_legend_lies_below_the_picture_with_the_colour_of_each_class() -> None:
    picture = np.full((20, 400, 3), 90, np.uint8)
    sheet = with_legend(picture, COLORS)
    assert sheet.shape == (20 + LINE_PX, 400, 3)
    assert np.array_equal(sheet[:20], picture)
    assert colors_in(sheet[20:]) >= {color for _, color in COLORS}


def test_a_narrow_legend_takes_a_line_for_each_class() -> None:
    sheet = with_legend(np.zeros((20, 60, 3), np.uint8), COLORS)
    assert sheet.shape == (20 + 3 * LINE_PX, 60, 3)
    for line, (_, color) in enumerate(COLORS):
        assert color in colors_in(sheet[20 + line * LINE_PX : 20 + (line + 1) * LINE_PX])


def test_text_stands_in_the_upper_left_corner_and_not_on_what_is_too_narrow_for_it() -> None:
    picture = np.zeros((64, 100, 3), np.uint8)
    written = with_text(picture, "z -110 mm")
    assert written[:20, :70].max() > 150
    assert written[20:].max() == 0
    assert picture.max() == 0
    assert np.array_equal(with_text(picture[:, :30], "z -110 mm"), picture[:, :30])
