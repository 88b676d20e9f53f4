import json
import os

import numpy as np
import pytest
from faster_coco_eval.core import mask as coco_masks
from hypothesis import given
from hypothesis import strategies as st

from clinbundles.transforms.readers.coco import (
    as_run_lengths,
    decode_mask,
    encode_mask,
    encode_positions,
    instances_of,
    mask_area,
    mask_box,
    pixels_of,
    read_coco,
)

SQUARE = [1, 1, 4, 1, 4, 3, 1, 3]
IMAGES = [{"id": 7, "file_name": "a.tif", "width": 6, "height": 5}]


@st.composite
def masks(draw):
    height, width, seed = draw(st.integers(1, 12)), draw(st.integers(1, 12)), draw(st.integers(0, 2**32 - 1))
    return np.random.RandomState(seed).rand(height, width) < draw(st.sampled_from([0, 0.1, 0.5, 0.9, 1]))


def write(path, *, images=IMAGES, annotations=()):
    path.write_text(json.dumps({"images": list(images), "annotations": list(annotations)}))
    return path


@given(masks())
def test_a_mask_comes_back_from_its_run_lengths_which_are_those_of_coco(mask):
    run_lengths = encode_mask(mask)
    assert run_lengths["counts"].encode() == coco_masks.encode(mask.astype(np.uint8))["counts"]
    np.testing.assert_array_equal(decode_mask(run_lengths), mask)
    np.testing.assert_array_equal(coco_masks.decode(run_lengths), mask)
    assert mask_area(run_lengths) == mask.sum()


@given(masks())
def test_pixels_and_box_are_those_of_the_mask(mask):
    run_lengths = encode_mask(mask)
    rows, columns = pixels_of(run_lengths)
    np.testing.assert_array_equal(np.stack([columns, rows], axis=1), np.argwhere(mask.T))
    assert encode_positions(columns * mask.shape[0] + rows, height=mask.shape[0], width=mask.shape[1]) == run_lengths
    x, y, width, height = mask_box(run_lengths)
    if mask.any():
        assert (x, x + width) == (columns.min(), columns.max() + 1)
        assert (y, y + height) == (rows.min(), rows.max() + 1)
    else:
        assert (width, height) == (0, 0)


def test_polygons_numbers_and_text_are_brought_to_the_same_run_lengths():
    expected = np.zeros((5, 6), bool)
    expected[1:3, 1:4] = True
    text = encode_mask(expected)
    numbers = {"size": [5, 6], "counts": [6, 2, 3, 2, 3, 2, 12]}
    for segmentation in ([SQUARE], [SQUARE, SQUARE], numbers, text):
        assert as_run_lengths(segmentation, height=5, width=6) == text


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [6, 5], "counts": [30]}, r"size \[6, 5\], the image is 5 px high and 6 px wide"),
        ({"counts": [30]}, "size None"),
        ({"size": [5, 6], "counts": [6, 2]}, "add up to 8 px, the image has 30"),
        ({"size": [5, 6], "counts": [40, -10]}, "no whole numbers within the image"),
        ({"size": [5, 6], "counts": "zz"}, "no text of COCO's|no whole numbers|add up to"),
        ({"size": [5, 6]}, "no whole numbers"),
        ([[1, 1, 2, 2]], "no polygon"),
        ([[1, 1, 2, 2, 3]], "no polygon"),
        ([["a"] * 6], "no polygon"),
        ([[1, 1, 2, 2, 3, float("nan")]], "reaches to"),
        ([[1, 1, 2, 2, 3, 1e12]], "reaches to 1e\\+12 px"),
        ([], "no list of polygons"),
        ("runs", "no list of polygons"),
        (None, "no list of polygons"),
    ],
)
def test_what_is_no_mask_of_the_image_is_refused(segmentation, message):
    with pytest.raises(ValueError, match=message):
        as_run_lengths(segmentation, height=5, width=6)


def test_a_list_is_read_once_and_again_when_it_changes(tmp_path):
    path = write(tmp_path / "a.json", annotations=[{"id": 1, "image_id": 7, "bbox": [0, 0, 1, 1]}])
    coco = read_coco(path)
    assert read_coco(str(path)) is coco
    assert (coco.image(7)["file_name"], coco.most_points, len(coco.annotations[7])) == ("a.tif", 0, 1)
    write(path, annotations=[{"id": 1, "image_id": 7, "point_coords": [[1, 1], [2, 2]]}])
    os.utime(path, ns=(1, 1))
    assert read_coco(path).most_points == 2
    with pytest.raises(ValueError, match=r"a\.json: there is no image of id 8"):
        coco.image(8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": [{"id": 4, "image_id": 9}]}, "annotation 4 is of image 9, not listed here"),
        ({"annotations": [{"id": 4}]}, "lacks 'image_id'"),
        ({"annotations": [{"id": 4, "image_id": 7}] * 2}, "two entries for annotation 4"),
        ({"images": IMAGES * 2}, "two entries for image 7"),
        ({"images": [{"id": 7, "file_name": "a.tif"}]}, "lacks 'width'"),
        ({"images": [7]}, "no COCO list"),
    ],
)
def test_a_list_that_is_not_as_coco_has_it_is_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=rf"a\.json: .*{message}"):
        read_coco(write(tmp_path / "a.json", **change))


def test_each_image_gets_its_own_annotations_from_a_list_or_a_dictionary(tmp_path):
    images = [{"id": k, "file_name": f"{k}.tif", "width": 6, "height": 5} for k in (1, 2, 3)]
    annotations = [{"id": k, "image_id": image} for k, image in enumerate((1, 3, 1))]
    for name, listed in (("list", annotations), ("dictionary", {str(a["id"]): a for a in annotations})):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"images": images, "annotations": listed}))
        of_image = read_coco(path).annotations
        assert {key: [a["id"] for a in of] for key, of in of_image.items()} == {1: [0, 2], 2: [], 3: [1]}


def test_a_list_that_is_missing_or_no_json_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.json: no such file"):
        read_coco(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{not json")
    with pytest.raises(ValueError, match=r"a\.json: no COCO list"):
        read_coco(tmp_path / "a.json")


def test_the_truth_of_an_item_is_its_boxes_and_masks(tmp_path):
    annotations = [
        {"id": 1, "image_id": 7, "bbox": [1, 1, 3, 2], "segmentation": [SQUARE]},
        {"id": 2, "image_id": 7, "bbox": [0, 0, 1.5, 1], "point_coords": [[0, 0]], "point_labels": [1]},
    ]
    images = [*IMAGES, {"id": 8, "file_name": "b.tif", "width": 6, "height": 5}]
    path = write(tmp_path / "a.json", images=images, annotations=annotations)
    truth = instances_of({"image": "a.tif", "label": str(path), "image_id": 7})
    assert (truth.image_id, truth.height, truth.width) == (7, 5, 6)
    np.testing.assert_allclose(truth.boxes, [[1, 1, 4, 3], [0, 0, 1.5, 1]])
    assert truth.masks[1] is None
    assert mask_area(truth.masks[0]) == 6
    assert instances_of({"label": str(path), "image_id": 8}).boxes.shape == (0, 4)


def test_images_and_masks_beyond_the_limit_are_refused_before_memory_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("CLINBUNDLES_MAX_IMAGE_MB", "1")
    huge = {**IMAGES[0], "width": 10**6, "height": 10**6}
    with pytest.raises(ValueError, match=r"a\.json: a\.tif of 1000000x1000000 px counts 4,000,000 MB"):
        read_coco(write(tmp_path / "a.json", images=[huge]))
    whole = {"size": [10**6, 10**6], "counts": [0, 10**12]}
    for decode in (pixels_of, decode_mask):
        with pytest.raises(ValueError, match=r"a mask .*CLINBUNDLES_MAX_IMAGE_MB"):
            decode(whole)
