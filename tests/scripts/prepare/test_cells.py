import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clinbundles.scripts.prepare.cells import bowl2018, livecell, sartorius
from clinbundles.scripts.prepare.datalist import items_of
from clinbundles.transforms.readers.coco import decode_mask, instances_of, mask_area

HEADER = "id,annotation,width,height,cell_type,plate_time,sample_date,sample_id,elapsed_timedelta"


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def bowl(tmp_path):
    """One image of 6 x 4 px with three nuclei, two of which touch."""
    case = tmp_path / "bowl" / "stage1_train" / "abc"
    save(case / "images" / "abc.png", np.zeros((4, 6, 4), np.uint8))
    for k, columns in enumerate((slice(0, 2), slice(2, 3), slice(4, 6))):
        mask = np.zeros((4, 6), np.uint8)
        mask[1:3, columns] = 255
        save(case / "masks" / f"{k}.png", mask)
    return tmp_path / "bowl"


def test_bowl_nuclei_become_one_mask(bowl):
    for root in (bowl, bowl / "stage1_train"):
        (record,) = bowl2018(root).masks.records
        assert (record.image.name, record.group) == ("abc.png", "abc")
        np.testing.assert_array_equal(record.convert()[1], [1, 1, 1, 0, 1, 1])
        assert record.convert().sum() == 10


def hide(root):
    """Put beside each file what macOS leaves on foreign disks."""
    for path in [path for path in root.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7 no image")


def test_hidden_files_are_passed_over(bowl, cells):
    hide(bowl)
    (record,) = bowl2018(bowl).masks.records
    assert record.convert().sum() == 10
    before = [image.image.name for image in sartorius(cells).instances.images]
    hide(cells)
    assert [image.image.name for image in sartorius(cells).instances.images] == before
    assert not any(image.fault for image in sartorius(cells).instances.images)


def test_a_nucleus_of_another_size_or_none_at_all_is_named(bowl):
    masks = bowl / "stage1_train" / "abc" / "masks"
    save(masks / "1.png", np.zeros((4, 7), np.uint8))
    (record,) = bowl2018(bowl).masks.records
    with pytest.raises(ValueError, match=r"1\.png: mask of 7x4 px, 0\.png has 6x4"):
        record.convert()
    for path in masks.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"abc/masks: no PNG mask"):
        record.convert()
    masks.rmdir()
    (record,) = bowl2018(bowl).masks.records
    assert record.missing().endswith("abc.png: image without mask.")


def write_table(root, rows, header=HEADER):
    (root / "train").mkdir(parents=True, exist_ok=True)
    (root / "train.csv").write_text("\n".join([header, *rows]) + "\n")
    return root


@pytest.fixture
def cells(tmp_path):
    rows = [
        "aa,1 2 7 2,6,4,shsy5y,11h,2019-06-16,shsy5y[diff]_E10-4_Vessel-361_Ph_3,0 days",
        "aa,23 2,6,4,shsy5y,11h,2019-06-16,shsy5y[diff]_E10-4_Vessel-361_Ph_3,0 days",
        "bb,3 1,6,4,shsy5y,11h,2019-06-16,shsy5y[diff]_E10-2_Vessel-361_Ph_3,0 days",
        "cc,1 1,6,4,cort,11h,2020-10-27,cort[oct],0 days",
    ]
    for name in ("aa", "bb", "cc"):
        save(tmp_path / "sartorius" / "train" / f"{name}.png", np.zeros((4, 6), np.uint8))
    return write_table(tmp_path / "sartorius", rows)


def test_the_runs_of_all_cells_of_an_image_become_one_mask(cells):
    records = {record.image.stem: record for record in sartorius(cells).masks.records}
    expected = [[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0] * 6, [0, 0, 0, 0, 1, 1]]
    np.testing.assert_array_equal(records["aa"].convert(), expected)
    assert records["bb"].convert().sum() == 1


def test_fields_of_one_well_are_one_group(cells):
    groups = {record.image.stem: record.group for record in sartorius(cells).masks.records}
    assert groups == {"aa": "shsy5y[diff]_E10_Vessel-361", "bb": "shsy5y[diff]_E10_Vessel-361", "cc": "cc"}


def test_images_without_rows_and_rows_without_image_are_named(cells):
    (cells / "train" / "bb.png").rename(cells / "train" / "dd.png")
    faults = {record.image.stem: record.missing() for record in sartorius(cells).masks.records}
    assert faults["bb"].startswith(f"{cells / 'train.csv'}: id 'bb' has no image")
    assert faults["dd"] == f"{cells / 'train' / 'dd.png'}: image without mask."
    assert faults["aa"] is None


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("id,width,height", "aa,6,4", r"train\.csv: no column 'annotation', only id, width, height"),
        (HEADER, "aa,1 2,wide,4,,,,,", r"train\.csv: column 'width' holds 'wide'"),
    ],
)
def test_a_table_that_lacks_something_is_named_at_once(cells, header, row, message):
    with pytest.raises(ValueError, match=message):
        list(sartorius(write_table(cells, [row], header)).masks.records)


def test_runs_that_leave_the_image_are_named_with_their_line(cells):
    write_table(cells, ["aa,1 2,6,4,,,,,", "aa,20 9,6,4,,,,,"])
    record = next(iter(sartorius(cells).masks.records))
    with pytest.raises(ValueError, match=r"train\.csv: line 3, column 'annotation': run of 9 pixels from pixel 20 on"):
        record.convert()
    write_table(cells, ["aa,1 2,6,4,,,,,", "aa,1 2,6,5,,,,,"])
    with pytest.raises(ValueError, match=r"train\.csv: aa is \(6, 4\) and \(6, 5\) px in size"):
        next(iter(sartorius(cells).masks.records)).convert()


def write_livecell(root, names, listed=None):
    for name in names:
        save(root / "images" / "livecell_test_images" / name, np.zeros((5, 6), np.uint8))
    images = [{"id": k, "file_name": name, "width": 6, "height": 5} for k, name in enumerate(listed or names)]
    annotations = [{"id": 1, "image_id": 0, "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]}]
    path = root / "annotations" / "LIVECell" / "livecell_coco_test.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return root


NAMES = ["A172_Phase_C7_1_00d20h00m_4.tif", "A172_Phase_C7_2_01d12h00m_3.tif", "SKOV3_Phase_C7_1_00d00h00m_2.tif"]


def test_livecell_polygons_become_masks_and_wells_groups(tmp_path):
    records = list(livecell(write_livecell(tmp_path, NAMES)).masks.records)
    assert [record.group for record in records] == ["A172_C7", "A172_C7", "SKOV3_C7"]
    assert [int(record.convert().sum()) for record in records] == [6, 0, 0]
    assert all(record.image.is_file() and record.missing() is None for record in records)


def test_listed_images_that_are_absent_are_named_and_unlisted_ones_counted(tmp_path, capsys):
    records = list(livecell(write_livecell(tmp_path, NAMES[:2], NAMES[1:])).masks.records)
    assert [bool(record.missing()) for record in records] == [False, True]
    assert f"livecell_coco_test.json: {NAMES[2]} is not below" in records[1].missing()
    assert f"1 images are left out: no list names them, the first is {NAMES[0]}" in capsys.readouterr().out


def test_an_image_in_two_lists_is_refused(tmp_path):
    folder = write_livecell(tmp_path, NAMES) / "annotations" / "LIVECell"
    (folder / "livecell_coco_val.json").write_bytes((folder / "livecell_coco_test.json").read_bytes())
    with pytest.raises(ValueError, match=rf"livecell_coco_val\.json: {NAMES[0]} is also in livecell_coco_test\.json"):
        list(livecell(tmp_path).masks.records)


@pytest.mark.parametrize("layout", [bowl2018, sartorius, livecell])
def test_a_folder_of_something_else_is_named(tmp_path, layout):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}: no folder"):
        list(layout(tmp_path).masks.records)


def test_the_nuclei_of_the_bowl_cover_about_what_the_paper_says(shared_data):
    folder = shared_data / "bowl2018"
    if not folder.is_dir():
        pytest.skip(f"no BOWL2018 samples: {folder} is missing")
    records = list(bowl2018(folder).masks.records)
    shares = [float(record.convert().mean()) for record in records[::6]]
    assert len(records) == 180
    assert 0.10 < np.mean(shares) < 0.25  # of 30 of them; 13.6 % of the whole set in the paper's Table 1


def test_livecell_becomes_semantic_masks(shared_data, capsys, run, drawn):
    folder = shared_data / "livecell"
    if not folder.is_dir():
        pytest.skip(f"no LIVECell samples: {folder} is missing")
    content = run(folder, "livecell")
    assert len(items_of(content)) == 15
    assert content["near_duplicates"] == []
    assert drawn(content) == "8e82e580e370e3b7"
    assert "cell: 34.2% of an image" in capsys.readouterr().out


def test_the_nuclei_of_bowl2018_are_split_as_behind_the_published_results(shared_data, run, drawn):
    folder = shared_data / "bowl2018"
    if not folder.is_dir():
        pytest.skip(f"no BOWL2018: {folder} is missing")
    content = run(folder, "bowl2018")
    assert content["data_sha256"].startswith("d07964ff45c43b82")
    assert drawn(content) == "9a3c3609ce5b065d"


def write_lists(root, of_list):
    """LIVECell with lists of image names; the k-th entry of all lists has id 10 k and one cell, of id k."""
    (root / "annotations").mkdir(parents=True)
    first = 1
    for split, names in of_list.items():
        ids = range(first, first + len(names))
        first += len(names)
        for name in names:
            save(root / "images" / name, np.random.RandomState(ord(name[-5])).randint(0, 255, (5, 6), np.uint8))
        images = [{"id": 10 * k, "file_name": n, "width": 6, "height": 5} for k, n in zip(ids, names, strict=True)]
        cells = [
            {"id": k, "image_id": 10 * k, "bbox": [1, 1, 3, 2], "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]} for k in ids
        ]
        path = root / "annotations" / f"livecell_coco_{split}.json"
        path.write_text(json.dumps({"images": images, "annotations": cells}))
    return root


def test_the_official_split_of_livecell_keeps_doubles_unless_told_otherwise(tmp_path, run, capsys):
    shared, half_done, other = NAMES[0], "A172_Phase_D7_1_01d20h00m_4.tif", NAMES[2]
    lists = {"train": [shared, half_done, other, other], "val": [shared], "test": [NAMES[1]]}
    root = write_lists(tmp_path / "cells", lists)
    content = run(root, "livecell", targets="instances", split="official")
    assert [len(content[name]) for name in ("training", "validation", "test")] == [4, 1, 1]
    assert sorted(item["image_id"] for item in items_of(content)) == [10, 20, 30, 40, 50, 60]
    assert "groups are in more than one" in capsys.readouterr().out
    with pytest.raises(ValueError, match=rf"{other} is also in .*train\.json\. --clean_split true"):
        list(livecell(root).masks.records)

    content = run(root, "livecell", targets="instances", split="official", clean_split=True)
    assert [item["image_id"] for item in content["training"]] == [30]
    assert [len(content[name]) for name in ("validation", "test")] == [1, 1]
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("6 images came in, 3 are used (0 of them without an instance), 3 are left out (1 that ")
    for reason in ("stand in their list before", "are in validation or test too", "most cells are not annotated"):
        assert reason in said
    assert len(list(livecell(root, clean_split=True).masks.records)) == 3


def test_cells_of_sartorius_are_instances(cells, run):
    for name in ("aa", "bb", "cc"):
        save(cells / "train" / f"{name}.png", np.random.RandomState(ord(name[0])).randint(0, 255, (4, 6), np.uint8))
    content = run(cells, "sartorius", targets="instances", ratios=(1, 0, 0), points=2)
    truth = {
        Path(item["image"]).stem: instances_of({**item, "label": cells / item["label"]}) for item in items_of(content)
    }
    assert truth["aa"].boxes.tolist() == [[0, 0, 2, 2], [4, 3, 6, 4]]
    assert [mask_area(mask) for mask in truth["aa"].masks] == [4, 2]
    assert {Path(item["image"]).stem: item["group"] for item in items_of(content)}["bb"].endswith("Vessel-361")


def test_every_nucleus_of_bowl2018_is_an_instance_and_looks_are_split_apart(shared_data, run, capsys):
    folder = shared_data / "bowl2018"
    if not folder.is_dir():
        pytest.skip(f"no BOWL2018: {folder} is missing")
    content = run(folder, "bowl2018", targets="instances", points=3)
    assert list(content["strata"].values()) == [83, 43, 23, 21, 10]
    said = capsys.readouterr().out
    assert "7552 instances came in, 7552 are used with 22656 points, 0 are left out" in said
    for item in items_of(content)[::20]:
        truth = instances_of({**item, "label": folder / item["label"]})
        files = sorted((folder / item["image"]).parents[1].glob("masks/*.png"))
        assert len(truth.masks) == len(files)
        for path, mask in zip(files, truth.masks, strict=True):
            np.testing.assert_array_equal(decode_mask(mask), np.asarray(Image.open(path).convert("L")) > 0)
