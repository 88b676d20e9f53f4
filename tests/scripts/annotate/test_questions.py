import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clinbundles.scripts.annotate.questions import Points, make_questions
from clinbundles.transforms.points import sample_points
from clinbundles.transforms.readers.coco import CocoList, decode_mask, read_coco


def test_every_box_is_asked_about_before_any_is_asked_again(images: Path, boxes: CocoList) -> None:
    questions, left_out = make_questions(images, boxes, n_points=2)
    assert not left_out
    assert [question.number for question in questions] == [0] * 6 + [1] * 6
    assert len({question.name for question in questions}) == 12
    assert all(question.image.is_file() for question in questions)


def test_random_points_are_those_that_prepare_draws_by_masks(images: Path, boxes: CocoList) -> None:
    questions, _ = make_questions(images, boxes, n_points=4)
    points = Points(boxes, n_points=4, seed=7)
    annotations = {a["id"]: a for several in boxes.annotations.values() for a in several}
    for question in questions:
        annotation = annotations[question.annotation_id]
        mask = decode_mask(annotation["segmentation"])
        expected, _ = sample_points(mask, annotation["bbox"], n=10, seed=(7, annotation["id"]))
        assert points.place_of(question, set()) == tuple(expected[question.number])


def test_a_model_is_asked_for_the_least_certain_pixel_that_has_no_answer(images: Path, boxes: CocoList) -> None:
    question = make_questions(images, boxes, n_points=1)[0][0]
    x, _, width, _ = question.box

    def rises_to_the_right(image: Path, box: list[float], pixels: np.ndarray) -> np.ndarray:
        assert (image, box) == (question.image, question.box)
        return (pixels[:, 0] + 0.5 - x) / width

    points = Points(boxes, n_points=1, seed=0, model=rises_to_the_right)
    first = points.place_of(question, set())
    assert first[0] == pytest.approx(x + width / 2, abs=1)
    second = points.place_of(question, {first})
    assert second != first
    assert second[0] == pytest.approx(x + width / 2, abs=3)
    assert points.n_fallbacks == 0


def test_where_the_model_finds_no_cell_the_point_is_random_and_counted(images: Path, boxes: CocoList) -> None:
    question = make_questions(images, boxes, n_points=1)[0][0]
    points = Points(boxes, n_points=1, seed=0, model=lambda *_: None)
    assert points.place_of(question, set()) == Points(boxes, n_points=1, seed=0).place_of(question, set())
    assert points.n_fallbacks == 1


def test_what_cannot_be_asked_is_counted_with_its_reason(images: Path, content: dict[str, Any], tmp_path: Path) -> None:
    content["annotations"][0]["bbox"] = [250, 250, 20, 20]
    content["images"][1]["file_name"] = "../../secret.png"
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    questions, left_out = make_questions(images, read_coco(tmp_path / "boxes.json"), n_points=1)
    assert len(questions) == 2
    assert sum(left_out.values()) == 4
    assert left_out["../../secret.png lies outside the folder"] == 3
    assert any("leaves the image of 256x256 px" in reason for reason in left_out)
    content["images"][0]["width"] = 99
    content["images"][1]["file_name"] = "none.png"
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"not one of its boxes .* has 256x256 px, the list 99x256; none.png is missing"
    ):
        make_questions(images, read_coco(tmp_path / "boxes.json"), n_points=1)


def test_a_missing_folder_and_no_points_are_refused(images: Path, boxes: CocoList, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none: no such folder of images"):
        make_questions(tmp_path / "none", boxes, n_points=1)
    with pytest.raises(ValueError, match="n_points is 0, expected 1 or more"):
        make_questions(images, boxes, n_points=0)
