import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clinbundles.scripts.annotate.questions import Points, Question, make_questions
from clinbundles.scripts.prepare.annotations import Omissions
from clinbundles.transforms.points import sample_points
from clinbundles.transforms.readers.coco import CocoList, decode_mask, read_coco


def test_every_box_is_asked_about_before_any_is_asked_again(images: Path, boxes: CocoList) -> None:
    questions, left_out = make_questions(images, boxes, n_points=2)
    assert not left_out.counts
    assert [question.number for question in questions] == [0] * 6 + [1] * 6
    assert len({question.name for question in questions}) == 12
    assert all(question.image.is_file() for question in questions)


def test_random_points_are_those_that_prepare_draws_by_masks(images: Path, boxes: CocoList) -> None:
    questions, _ = make_questions(images, boxes, n_points=4)
    points = Points(boxes, seed=7)
    annotations = {a["id"]: a for several in boxes.annotations.values() for a in several}
    for question in questions:
        annotation = annotations[question.annotation_id]
        mask = decode_mask(annotation["segmentation"])
        expected, _ = sample_points(mask, annotation["bbox"], n=10, seed=(7, annotation["id"]))
        assert points.place_of(question) == tuple(expected[question.number])


def test_a_model_is_asked_for_the_least_certain_pixels_of_a_box(images: Path, boxes: CocoList) -> None:
    questions = make_questions(images, boxes, n_points=4)[0][::6]  # of the first box
    x, _, width, _ = questions[0].box

    def rises_to_the_right(image: Path, box: list[float], pixels: np.ndarray) -> np.ndarray:
        assert (image, box) == (questions[0].image, questions[0].box)
        return (pixels[:, 0] + 0.5 - x) / width

    points = Points(boxes, seed=0, model=rises_to_the_right)
    places = [points.place_of(question) for question in questions]
    assert len(set(places)) == 4
    distances = [abs(place[0] + 0.5 - x - width / 2) for place in places]
    assert distances == sorted(distances)
    assert distances[0] <= 1
    assert not points.fallbacks
    # Neither what was asked before nor what is shown ahead moves a point.
    anew = Points(boxes, seed=0, model=rises_to_the_right)
    assert [anew.place_of(question) for question in reversed(questions)] == places[::-1]


def test_where_the_model_finds_no_cell_the_point_is_random_and_counted(images: Path, boxes: CocoList) -> None:
    question = make_questions(images, boxes, n_points=1)[0][0]
    points = Points(boxes, seed=0, model=lambda *_: None)
    assert points.place_of(question) == points.place_of(question) == Points(boxes, seed=0).place_of(question)
    assert points.fallbacks == {question.name}


def test_a_box_of_one_pixel_has_random_points_behind_its_first(
    images: Path, content: dict[str, Any], tmp_path: Path
) -> None:
    content["annotations"][0]["bbox"] = [7, 8, 1, 1]
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    listed = read_coco(tmp_path / "boxes.json")
    points = Points(listed, seed=0, model=lambda image, box, pixels: np.full(len(pixels), 0.5))
    questions = [q for q in make_questions(images, listed, n_points=3)[0] if q.box == [7, 8, 1, 1]]
    assert [points.place_of(question) for question in questions] == [(7, 8)] * 3
    assert len(points.fallbacks) == 2


def test_boxes_are_shuffled_within_each_round(images: Path, boxes: CocoList) -> None:
    listed, _ = make_questions(images, boxes, n_points=2)
    shuffled, _ = make_questions(images, boxes, n_points=2, order="shuffled", seed=1)
    assert [q.name for q in shuffled] != [q.name for q in listed]
    assert sorted(q.name for q in shuffled) == sorted(q.name for q in listed)
    assert [q.number for q in shuffled] == [0] * 6 + [1] * 6
    assert shuffled == make_questions(images, boxes, n_points=2, order="shuffled", seed=1)[0]


def make(images: Path, content: dict[str, Any], folder: Path) -> tuple[list[Question], Omissions]:
    (folder / "boxes.json").write_text(json.dumps(content))
    return make_questions(images, read_coco(folder / "boxes.json"), n_points=1)


def test_what_cannot_be_asked_is_counted_with_its_reason(images: Path, content: dict[str, Any], tmp_path: Path) -> None:
    content["annotations"][0]["bbox"] = [300, 250, 20, 20]
    content["annotations"][1]["iscrowd"] = 1
    content["images"][1]["file_name"] = "../../secret.png"
    questions, left_out = make(images, content, tmp_path)
    assert len(questions) == 1
    assert left_out.counts == {
        "whose box is outside the image": 1,
        "that mark a crowd": 1,
        "whose image lies outside the folder": 3,
    }
    content["images"][0]["width"] = 999
    content["images"][1]["file_name"] = "none.png"
    with pytest.raises(ValueError, match=r"not one .*: 3 whose image has 256x256 px, by the list 999x256.*3 whose"):
        make(images, content, tmp_path)


@pytest.mark.parametrize("box", [None, [1, 2, 3], ["a", 1, 2, 3], [1, 1, float("nan"), 3], "none"])
def test_a_box_that_is_none_costs_no_other(images: Path, content: dict[str, Any], box: Any, tmp_path: Path) -> None:
    content["annotations"][0] |= {"bbox": box, "segmentation": None}
    if box == "none":
        del content["annotations"][0]["bbox"]
    questions, left_out = make(images, content, tmp_path)
    assert (len(questions), left_out.total()) == (5, 1)


def test_a_box_is_cut_at_the_edge_of_its_image(images: Path, content: dict[str, Any], tmp_path: Path) -> None:
    content["annotations"][0]["bbox"] = [250, 240, 20, 30]
    questions, _ = make(images, content, tmp_path)
    assert questions[0].box == [250, 240, 6, 16]


def test_an_image_that_cannot_be_read_costs_no_other(images: Path, content: dict[str, Any], tmp_path: Path) -> None:
    for image in content["images"]:
        shutil.copy(images / image["file_name"], tmp_path)
    file = tmp_path / content["images"][0]["file_name"]
    file.write_bytes(file.read_bytes()[:3000])  # its header tells the size still
    questions, left_out = make(tmp_path, content, tmp_path)
    assert (len(questions), left_out.total()) == (3, 3)
    assert "whose image cannot be read" in str(left_out)


def test_corners_and_ids_that_are_no_numbers_are_refused(images: Path, content: dict[str, Any], tmp_path: Path) -> None:
    for number in (-3, "182"):
        content["annotations"][0]["id"] = number
        with pytest.raises(ValueError, match=f"the id of annotation {number} of .* is no whole number from 0 on"):
            make(images, content, tmp_path)
    for annotation in content["annotations"]:
        annotation["bbox"] = [200, 200, 230, 240]
    with pytest.raises(ValueError, match="are they corners x1, y1, x2, y2"):
        make(images, content, tmp_path)


def test_a_missing_folder_and_no_points_are_refused(images: Path, boxes: CocoList, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none: no such folder of images"):
        make_questions(tmp_path / "none", boxes, n_points=1)
    with pytest.raises(ValueError, match="n_points is 0, expected 1 or more"):
        make_questions(images, boxes, n_points=0)
