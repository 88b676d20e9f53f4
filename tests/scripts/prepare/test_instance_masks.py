import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinbundles.scripts.prepare.instance_masks import decode_runs, union_of_polygons


def runs_of(mask):
    """Run lengths of a mask (H, W), by counting pixels one at a time."""
    runs, before = [], False
    for position, inside in enumerate(mask.ravel().tolist(), start=1):
        if inside and not before:
            runs += [position, 0]
        if inside:
            runs[-1] += 1
        before = inside
    return " ".join(map(str, runs))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_a_mask_comes_back_from_its_run_lengths(height, width, seed):
    mask = np.random.RandomState(seed).rand(height, width) < 0.4
    np.testing.assert_array_equal(decode_runs(runs_of(mask), height=height, width=width), mask)
    by_columns = decode_runs(runs_of(mask.T), height=height, width=width, column_major=True)
    np.testing.assert_array_equal(by_columns, mask)


def test_the_first_pixel_is_one_and_the_next_is_to_its_right():
    np.testing.assert_array_equal(decode_runs("1 2", height=2, width=3), [[1, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(decode_runs("3 2", height=2, width=3), [[0, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(decode_runs("1 2", height=2, width=3, column_major=True), [[1, 0, 0], [1, 0, 0]])


def test_no_runs_are_an_empty_mask():
    assert not decode_runs("", height=2, width=3).any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3", "3 run-length numbers, expected pairs"),
        ("1 two", "'1 two' are not whole numbers"),
        ("5 3", "run of 3 pixels from pixel 5 on leaves the image of 3x2 px"),
        ("0 3", "run of 3 pixels from pixel 0 on"),
        ("1 0", "run of 0 pixels"),
    ],
)
def test_runs_that_make_no_mask_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        decode_runs(text, height=2, width=3)


SQUARE = [1, 1, 4, 1, 4, 3, 1, 3]


def cells(*parts):
    return [{"id": k, "segmentation": [part]} for k, part in enumerate(parts)]


def test_a_square_covers_the_pixels_inside_it(tmp_path):
    mask = union_of_polygons(cells(SQUARE), size=(6, 5), path=tmp_path)
    assert mask.shape == (5, 6)
    np.testing.assert_array_equal(np.argwhere(mask), [[y, x] for y in (1, 2) for x in (1, 2, 3)])


def test_a_polygon_has_about_its_area_and_what_leaves_the_image_is_cut(tmp_path):
    angle = np.linspace(0, 2 * np.pi, 100)
    circle = (100 + 40 * np.stack([np.cos(angle), np.sin(angle)], axis=1)).ravel().tolist()
    whole = union_of_polygons(cells(circle), size=(200, 200), path=tmp_path)
    assert whole.sum() == pytest.approx(np.pi * 40**2, rel=0.01)
    assert union_of_polygons(cells(circle), size=(100, 200), path=tmp_path).sum() == whole[:, :100].sum()


def test_cells_are_joined_and_an_image_without_is_background(tmp_path):
    other = [3, 2, 6, 2, 6, 5, 3, 5]
    both = union_of_polygons(cells(SQUARE, other), size=(6, 5), path=tmp_path)
    assert both.sum() == 6 + 9 - 1
    assert not union_of_polygons([], size=(6, 5), path=tmp_path).any()


@pytest.mark.parametrize("part", [[1, 1, 2, 2], [1, 1, 2, 2, 3], "runs"])
def test_what_is_no_polygon_is_named(tmp_path, part):
    with pytest.raises(ValueError, match=r"list\.json: annotation 0: segmentation is no list of polygons"):
        union_of_polygons(cells(part), size=(6, 5), path=tmp_path / "list.json")


def test_an_annotation_without_a_mask_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"list\.json: annotation 4: segmentation is no list of polygons"):
        union_of_polygons([{"id": 4}], size=(6, 5), path=tmp_path / "list.json")
