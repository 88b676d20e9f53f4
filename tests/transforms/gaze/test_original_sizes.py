import pytest

from clinbundles.transforms.gaze.original_sizes import naming_of, read_original_sizes

GAZEMEDSEG = "IMAGE,CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION,IMAGE_HEIGHT,IMAGE_WIDTH"


def write(path, *lines):
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_table_of_fixations_tells_the_sizes_by_the_names_of_the_images(tmp_path):
    path = write(tmp_path / "g.csv", GAZEMEDSEG, *["A.jpg,0.1,0.2,100,530,622"] * 2, "b,0.1,0.2,100,1070,1348")
    assert read_original_sizes(path) == {"A.jpg": (530, 622), "b": (1070, 1348)}
    assert read_original_sizes(path, images={"a.jpg", "b.png"}) == {"a.jpg": (530, 622), "b.png": (1070, 1348)}


def test_an_export_tells_the_size_of_the_original_media_and_not_the_shown_one(tmp_path):
    header = ("Recording timestamp [ms]", "Presented Media name", "Presented Media width [px]")
    header += ("Original Media width [px]", "Original Media height [px]")
    rows = ("0", "a.jpg", "900", "622", "530"), ("8", "", "", "", "")
    path = write(tmp_path / "e.tsv", *("\t".join(fields) for fields in (header, *rows)))
    assert read_original_sizes(path) == {"a.jpg": (530, 622)}


def test_columns_of_other_names_and_a_file_of_one_image_are_read_too(tmp_path):
    path = write(tmp_path / "g.csv", "X,Y,D,Frame,IMAGE_WIDTH,IMAGE_HEIGHT", "1,2,100,a.jpg,622,530")
    assert read_original_sizes(path) == {}
    naming = naming_of({"columns": {"x": "X", "image": "Frame"}, "position_unit": "px"})
    assert read_original_sizes(path, **naming) == {"a.jpg": (530, 622)}
    assert read_original_sizes(path, **naming_of({"image_name": "c.jpg"})) == {"c.jpg": (530, 622)}


def test_a_table_without_sizes_tells_none(tmp_path):
    assert read_original_sizes(write(tmp_path / "g.csv", "x,y,time,image", "1,2,0,a.jpg")) == {}
    assert read_original_sizes(write(tmp_path / "h.csv", GAZEMEDSEG, "a.jpg,0.1,0.2,100,,")) == {}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a.jpg,0.1,0.2,100,530,622", "a.jpg,0.1,0.2,100,530,700"], r"a\.jpg has the original sizes 622x530 and 700x"),
        (["a.jpg,0.1,0.2,100,0,622"], r"g\.csv: a\.jpg has the original size 622x0 px, expected whole numbers"),
        (["a.jpg,0.1,0.2,100,530.5,622"], "622x530.5 px"),
        (["a.jpg,0.1,0.2,100,large,622"], "column 'IMAGE_HEIGHT' has 'large', expected a number"),
    ],
)
def test_a_size_that_is_none_is_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        read_original_sizes(write(tmp_path / "g.csv", GAZEMEDSEG, *rows))
