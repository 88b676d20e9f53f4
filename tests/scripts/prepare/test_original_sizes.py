import json
from pathlib import Path

import pytest
from PIL import Image

from clinbundles.scripts.prepare.datalist import items_of
from clinbundles.scripts.prepare.gaze import add_gaze
from clinbundles.scripts.prepare.original_sizes import join_size, say_sizes, sizes_in_boxes
from clinbundles.scripts.simulate_gaze import simulate_gaze

HEADER = "IMAGE,CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION"


@pytest.fixture
def kvasir(plain, tmp_path):
    """A copy of Kvasir-SEG made smaller: its list of boxes tells the original sizes of all but the last image."""
    root = plain.rename(tmp_path / "Kvasir-SEG")
    boxes = {f"i{k}": {"height": 300, "width": 400 + k, "bbox": []} for k in range(9)}
    (root / "kavsir_bboxes.json").write_text(json.dumps(boxes))
    return root


def sizes(content):
    return {Path(i["image"]).stem: i["original_size"] for i in items_of(content) if "original_size" in i}


def test_the_list_of_boxes_gives_the_original_sizes_to_prepare_and_to_simulated_gaze(kvasir, run, tmp_path, capsys):
    datalist, table = tmp_path / "datalist.json", tmp_path / "gaze.csv"
    content = run(kvasir, "kvasir_seg", ratios=(10, 0, 0))
    assert sizes(content) == {f"i{k}": [300, 400 + k] for k in range(9)}
    for item in items_of(content):  # as in a datalist of earlier versions
        item.pop("original_size", None)
    datalist.write_text(json.dumps(content))
    simulate_gaze(str(datalist), dataset_dir=str(kvasir), csv=str(table))
    assert sizes(json.loads(datalist.read_text())) == {f"i{k}": [300, 400 + k] for k in range(9)}
    assert "original size of 1 of 10 images with gaze not known, the first is images/i9.jpg" in capsys.readouterr().out
    assert {tuple(row.split(",")[7:9]) for row in table.read_text().splitlines() if row.startswith("i3")} == {
        ("300", "403")
    }


def test_another_release_names_its_list_otherwise_and_hidden_files_are_no_lists(tmp_path):
    (tmp_path / "bounding-boxes.json").write_text('{"a": {"height": 300, "width": 400}}')
    (tmp_path / "._kavsir_bboxes.json").write_bytes(b"\0\5\x16\7\xff")
    assert sizes_in_boxes(tmp_path) == {"a": (300, 400)}


def test_the_file_of_gaze_tells_the_size_of_what_was_looked_at_and_goes_before_the_list(kvasir, run, tmp_path, capsys):
    run(kvasir, "kvasir_seg")
    gaze = tmp_path / "gaze.csv"
    rows = ["i3.jpg,0.5,0.5,200,300,403", "i4.jpg,0.5,0.5,200,600,800", "i9.jpg,0.5,0.5,200,90,120"]
    gaze.write_text("\n".join([f"{HEADER},IMAGE_HEIGHT,IMAGE_WIDTH", *rows]))
    capsys.readouterr()
    add_gaze(str(tmp_path / "datalist.json"), str(gaze))
    found = sizes(json.loads((tmp_path / "datalist.json").read_text()))
    assert [found[name] for name in ("i2", "i3", "i4", "i9")] == [[300, 402], [300, 403], [600, 800], [90, 120]]
    out = capsys.readouterr().out
    assert "i4.jpg: 800x600 px in the file of gaze, 404x300 in the data set: the file of gaze counts" in out
    assert "i3.jpg" not in out
    assert "not known" not in out


def test_gaze_without_a_size_is_said_on_screen(plain, run, tmp_path, capsys):
    gaze = tmp_path / "gaze.csv"
    gaze.write_text(f"{HEADER}\ni3.jpg,0.5,0.5,200")
    run(plain, gaze=str(gaze))
    expected = "original size of 1 of 1 images with gaze not known, the first is images/i3.jpg: gaze_sigma_px counts in"
    assert expected in capsys.readouterr().out
    run(plain)
    assert "original size" not in capsys.readouterr().out
    add_gaze(str(tmp_path / "datalist.json"), str(gaze))
    assert expected in capsys.readouterr().out


def test_two_observers_of_images_of_two_sizes_are_refused(plain, run, tmp_path):
    for k in (1, 2):
        row = f"i3.jpg,0.5,0.5,200,{300 * k},{400 * k}"
        (tmp_path / f"gaze_{k}.csv").write_text(f"{HEADER},IMAGE_HEIGHT,IMAGE_WIDTH\n{row}")
    with pytest.raises(ValueError, match=r"i3\.jpg is 400x300 px large in .*gaze_1\.csv and 800x600 in .*gaze_2\.csv"):
        run(plain, gaze=str(tmp_path / "gaze_*.csv"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"bboxes\.json: not JSON"),
        ("[]", "expected the boxes of each image by its name"),
        ('{"a": {"height": 3}}', r"a has height and width \[3, None\], expected two whole numbers"),
    ],
)
def test_a_list_of_boxes_that_is_none_is_named(tmp_path, text, message):
    (tmp_path / "kavsir_bboxes.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        sizes_in_boxes(tmp_path)


def test_a_folder_without_a_list_tells_no_size(tmp_path):
    assert sizes_in_boxes(tmp_path) == {}


def test_an_item_without_gaze_keeps_its_size_and_needs_none():
    item = {"image": "a.png", "original_size": [3, 4]}
    assert join_size(item, {}) == item
    assert say_sizes([{"image": "a.png"}, {"image": "b.png", "fixations": [], "original_size": [3, 4]}]) == ""


def test_the_original_sizes_of_kvasir_have_the_shape_of_its_images(shared_data):
    folder = shared_data / "kvasir_seg" / "Kvasir-SEG"
    if not folder.is_dir():
        pytest.skip(f"no Kvasir-SEG: {folder} is missing")
    original = sizes_in_boxes(folder)
    assert len(original) == 1000
    for path in sorted((folder / "images").iterdir())[:50]:
        with Image.open(path) as image:
            width, height = image.size
        assert width / height == pytest.approx(original[path.stem][1] / original[path.stem][0], rel=0.01)
