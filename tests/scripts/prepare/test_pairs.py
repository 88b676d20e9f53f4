import numpy as np
from PIL import Image

from clinbundles.scripts.prepare.datalist import Record
from clinbundles.scripts.prepare.pairs import own_folder, with_foreground


def test_the_folder_of_the_set_is_found_from_above_and_from_inside(tmp_path):
    (tmp_path / "Set" / "images").mkdir(parents=True)
    assert own_folder(tmp_path, "Set", holds="images") == tmp_path / "Set"
    assert own_folder(tmp_path / "Set", "Set", holds="images") == tmp_path / "Set"
    assert own_folder(tmp_path / "no", "Set", holds="images") == tmp_path / "no"


def test_records_get_the_conversion_of_their_label_map_and_incomplete_ones_none(tmp_path):
    Image.fromarray(np.array([[0, 1, 5]], np.uint8)).save(tmp_path / "a.png")
    given = [Record(tmp_path / "i.png", tmp_path / "a.png", "a"), Record(tmp_path / "j.png", None, "j")]
    first, second = with_foreground(given, foreground={5})
    np.testing.assert_array_equal(first.convert(), [[0, 0, 1]])
    assert second == given[1]
