import json
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from clinbundles.scripts.prepare.datalist import items_of
from clinbundles.scripts.prepare.instance_sets import coco, instance_maps, split_named
from clinbundles.transforms.readers.coco import decode_mask, instances_of, mask_area

SQUARE = [1, 1, 4, 1, 4, 3, 1, 3]


def save(path, seed=0, size=(6, 5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(seed).randint(0, 255, size[::-1], np.uint8)).save(path)
    return path


@pytest.fixture
def write(tmp_path):
    """Write a list with four images a.png to d.png of 6 x 5 px and some annotations of the first; return its folder."""

    def write(*annotations, name="list.json", **changes):
        images = [{"id": 10 + k, "file_name": f"{n}.png", "width": 6, "height": 5} for k, n in enumerate("abcd")]
        for k, image in enumerate(images):
            save(tmp_path / "data" / "images" / image["file_name"], k)
        entries = [{"id": k + 1, "image_id": 10, "bbox": [1, 1, 3, 2], **a} for k, a in enumerate(annotations)]
        path = tmp_path / "data" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"images": images, "annotations": entries, **changes}))
        return tmp_path / "data"

    return write


def test_polygons_run_lengths_boxes_and_points_of_people_are_taken_together(write, run, tmp_path, capsys):
    root = write(
        {"segmentation": [SQUARE]},
        {"segmentation": {"size": [5, 6], "counts": [6, 2, 3, 2, 3, 2, 12]}, "bbox": [0, 0, 5, 4]},
        {"point_coords": [[1, 1], [2.7, 2.2], [5, 4]], "point_labels": [1, 0, 1]},
        {},
        {"iscrowd": 1},
        {"bbox": [1, 1, 0, 2]},
    )
    content = run(root, "coco", ratios=(2, 1, 1), points=3, label="nucleus")
    written = json.loads((tmp_path / "datalist_coco.json").read_text())
    assert [a["id"] for a in written["annotations"]] == [1, 2, 3, 4]
    assert [a["bbox"] for a in written["annotations"]] == [[1, 1, 3, 2], [0, 0, 5, 4], [1, 1, 3, 2], [1, 1, 3, 2]]
    assert [a["area"] for a in written["annotations"]] == [6, 6, 6, 6]
    assert written["annotations"][0]["segmentation"] == written["annotations"][1]["segmentation"]
    assert [len(a["point_labels"]) for a in written["annotations"]] == [3, 3, 2, 0]
    assert written["annotations"][2]["point_coords"] == [[1, 1], [2, 2]]
    assert written["categories"] == [{"id": 1, "name": "cell"}]
    assert {(item["image"], item["image_id"]) for item in items_of(content)} == {
        (f"images/{name}.png", 10 + k) for k, name in enumerate("abcd")
    }
    assert content["labels"]["1"] == "nucleus"
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        "4 images came in, 4 are used (3 of them without an instance), 0 are left out; 6 instances came in, 4 are used "
        "with 8 points, 2 are left out (1 that mark a crowd, first annotation 5 of a.png; 1 whose box has no area, "
        "first annotation 6 of a.png); 1 points are outside their box, first annotation 3 of a.png"
    )


def test_the_written_list_can_be_prepared_again_and_stays_the_same(write, run, tmp_path):
    root = write({"segmentation": [SQUARE]}, {"bbox": [0, 0, 2, 2]})
    run(root, "coco", ratios=(2, 1, 1))
    first = (tmp_path / "datalist_coco.json").read_text()
    (root / "list.json").write_text(first)
    run(root, "coco", ratios=(2, 1, 1))
    assert json.loads((tmp_path / "datalist_coco.json").read_text())["annotations"] == json.loads(first)["annotations"]


def test_lists_of_splits_make_the_official_one(write, run):
    root = write({}, name="annotations/cells_train.json")
    content = json.loads((root / "annotations" / "cells_train.json").read_text())
    for split, images in {"train": content["images"][:2], "test": content["images"][2:]}.items():
        annotations = content["annotations"] if split == "train" else []
        path = root / "annotations" / f"cells_{split}.json"
        path.write_text(json.dumps({"images": images, "annotations": annotations}))
    content = run(root, "coco", split="official")
    assert {name: len(content.get(name, [])) for name in ("training", "validation", "test")} == {
        "training": 2,
        "validation": 0,
        "test": 2,
    }


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("livecell_coco_val", "validation"),
        ("instances_train2017", "training"),
        ("training", "training"),
        ("Validation", "validation"),
        ("test", "test"),
        ("trainer", None),
        ("cells", None),
    ],
)
def test_a_name_tells_its_split(name, split):
    assert split_named(name) == split


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        (
            [{"bbox": [2, 2, 6, 5]}, {"bbox": [3, 1, 6, 4]}, {"bbox": [0, 0, 2, 2]}],
            r"2 of 3 boxes leave their image, so",
        ),
        ([{"id": 3}, {"id": 3}], "two entries for annotation 3"),
        ([{"image_id": 99}], "of image 99, not listed here"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused(write, annotations, message):
    with pytest.raises(ValueError, match=rf"list\.json: .*{message}"):
        coco(write(*annotations))


def test_a_missing_file_another_size_and_a_stack_are_named_or_skipped(write, run, capsys):
    root = write({})
    (root / "images" / "b.png").unlink()
    save(root / "images" / "c.png", size=(7, 5))
    with pytest.raises(ValueError, match=r"list\.json: b\.png is not below .*data\. --skip_bad leaves"):
        run(root, "coco", ratios=(2, 1, 1))
    content = run(root, "coco", ratios=(1, 0, 0), skip_bad=True)
    assert [entry["file"] for entry in content["skipped"]] == ["b.png", "images/c.png"]
    assert content["skipped"][1]["reason"] == "images/c.png: 7x5 px, its list says 6x5."
    said = capsys.readouterr().out
    assert "skipped images/c.png" in said
    assert (
        "4 images came in, 2 are used (1 of them without an instance), 2 are left out (2 that are bad, first b" in said
    )


def test_a_file_of_two_places_and_lists_of_no_split_are_refused(write, tmp_path):
    root = write({})
    save(root / "more" / "a.png")
    with pytest.raises(ValueError, match=r"list\.json: a\.png may be .*images/a\.png or .*more/a\.png"):
        coco(root)
    assert len(list(coco(root, images="images").images)) == 4
    (root / "other.json").write_text("{}")
    with pytest.raises(ValueError, match=r"2 lists here, the first is list\.json: --annotations says which"):
        coco(root)
    assert len(list(coco(root, annotations="list.json", images="images").images)) == 4
    elsewhere = shutil.move(root / "list.json", tmp_path / "mine.json")
    assert len(list(coco(root, annotations=str(elsewhere), images="images").images)) == 4
    with pytest.raises(FileNotFoundError, match=r"--annotations /none\.json: no such file in"):
        coco(root, annotations="/none.json")
    shutil.move(elsewhere, root / "list.json")
    with pytest.raises(FileNotFoundError, match="--annotations x: no such file"):
        coco(root, annotations="x")
    with pytest.raises(FileNotFoundError, match="--images x: no such folder"):
        coco(root, annotations="list.json", images="x")


MAP = np.zeros((5, 6), np.uint32)
MAP[1:3, 1:4] = 3
MAP[4, 5] = 70_000


def label_map(path, values=MAP):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, values, compression="zlib")
    else:
        Image.fromarray(np.where(values > 60_000, 60_000, values).astype(np.uint16)).save(path)


def folders(root):
    for k in range(4):
        save(root / "images" / f"{k}.png", k)
        label_map(root / "masks" / f"{k}.tif")


def side_by_side(root):
    for k in range(4):
        save(root / f"{k}.png", k)
        label_map(root / (f"{k}_masks.png" if k % 2 else f"{k}_cp_masks.tif"))


def cellpose_set(root):
    for k in range(4):
        folder = root / ("train" if k < 3 else "test")
        save(folder / f"{k:03}_img.png", k)
        label_map(folder / f"{k:03}_masks.png")


@pytest.mark.parametrize("layout", [folders, side_by_side, cellpose_set])
def test_label_maps_in_any_layout_have_each_number_for_an_instance(tmp_path, run, layout, capsys):
    layout(tmp_path / "maps")
    content = run(tmp_path / "maps", "instance_maps", ratios=(2, 1, 1), points=1)
    assert len(items_of(content)) == 4
    for item in items_of(content):
        truth = instances_of({**item, "label": tmp_path / "maps" / item["label"]})
        assert [mask_area(mask) for mask in truth.masks] == [6, 1]
        np.testing.assert_array_equal(decode_mask(truth.masks[0]), MAP == 3)
    assert "8 instances came in, 8 are used with 8 points, 0 are left out" in capsys.readouterr().out


def test_folders_of_splits_are_official(tmp_path):
    cellpose_set(tmp_path)
    assert [image.split for image in instance_maps(tmp_path).images] == ["test", "training", "training", "training"]


def test_images_of_one_slide_stay_together_where_a_pattern_finds_it(tmp_path, capsys):
    folders(tmp_path)
    assert len({image.group for image in instance_maps(tmp_path).images}) == 4
    assert "every image counts as a patient of its own" in capsys.readouterr().out
    assert {image.group for image in instance_maps(tmp_path, patient_pattern=r".*(\.)").images} == {"."}
    assert "patient of its own" not in capsys.readouterr().out


def test_what_is_no_label_map_is_named(tmp_path, run):
    folders(tmp_path / "maps")
    path = tmp_path / "maps" / "masks" / "0.tif"
    tifffile.imwrite(path, np.stack([MAP, MAP]))
    with pytest.raises(ValueError, match=r"0\.tif: .*a TIFF of 2 planes"):
        run(tmp_path / "maps", "instance_maps", ratios=(2, 1, 1))
    label_map(path, MAP.T)
    content = run(tmp_path / "maps", "instance_maps", ratios=(2, 1, 1))
    assert content["left_out"]["instances"] == {"whose mask cannot be read or is of another size": 2}
    path.unlink()
    with pytest.raises(ValueError, match=r"0\.png: image without mask"):
        run(tmp_path / "maps", "instance_maps", ratios=(2, 1, 1))
