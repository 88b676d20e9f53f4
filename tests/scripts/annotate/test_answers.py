import json
from pathlib import Path

import pytest

from clinbundles.scripts.annotate.answers import Answers
from clinbundles.transforms.points import BOX, POINTS, LoadInstancesd
from clinbundles.transforms.readers.coco import CocoList


@pytest.fixture
def answers(boxes: CocoList, tmp_path: Path) -> Answers:
    made = Answers(tmp_path / "a.jsonl", boxes, n_points=4, seed=0)
    first, second, *_ = boxes.annotations[5]
    made.add(f"{first['id']}:1", x=3, y=45, label=1, seconds=1.5)
    made.add(f"{first['id']}:0", x=1, y=42, label=0, seconds=0.5)
    made.add(f"{second['id']}:0", x=9, y=9, label=1, seconds=300)
    return made


def test_answers_are_on_the_disk_at_once_and_taken_up_again(answers: Answers, boxes: CocoList) -> None:
    again = Answers(answers.path, boxes, n_points=4, seed=0)
    assert again.by_name == answers.by_name
    assert len(again.by_name) == 3
    assert again.undo() == next(reversed(answers.by_name))
    assert len(Answers(answers.path, boxes, n_points=4, seed=0).by_name) == 2


def test_a_line_that_was_cut_off_costs_no_other(answers: Answers, boxes: CocoList) -> None:
    with answers.path.open("a") as stream:
        stream.write('{"question": "1:')
    again = Answers(answers.path, boxes, n_points=4, seed=0)
    assert again.by_name == answers.by_name
    again.undo()
    assert len(Answers(answers.path, boxes, n_points=4, seed=0).by_name) == 2


def test_answers_to_other_boxes_or_points_are_refused(answers: Answers, boxes: CocoList) -> None:
    with pytest.raises(ValueError, match=r"a\.jsonl: its answers are to seed 0, now 1\. Give another --output"):
        Answers(answers.path, boxes, n_points=4, seed=1)
    boxes.path.write_text(boxes.path.read_text() + " ")
    with pytest.raises(ValueError, match="its answers are to other boxes"):
        Answers(answers.path, boxes, n_points=4, seed=0)
    answers.path.write_text(answers.path.read_text() + "nothing\n")
    with pytest.raises(ValueError, match="holds a line that is no answer"):
        Answers(answers.path, boxes, n_points=4, seed=0)


def test_a_training_reads_the_points_and_takes_boxes_without_an_answer_as_boxes(
    answers: Answers, tmp_path: Path
) -> None:
    assert answers.write_list(tmp_path / "points.json") == 3
    item = LoadInstancesd("label")({"label": str(tmp_path / "points.json"), "image_id": 5})
    assert item["supervision"].tolist() == [POINTS, POINTS, BOX]
    assert item["points"][0, :2].tolist() == [[1.5, 42.5], [3.5, 45.5]]
    assert item["point_labels"].tolist() == [[0, 1], [1, -1], [-1, -1]]
    content = json.loads((tmp_path / "points.json").read_text())
    assert content["info"] == {"answers": 3, "median_seconds_per_point": 1.0}
    assert not [a for a in content["annotations"] if "segmentation" in a]
    assert len(content["annotations"]) == 6


def test_nothing_answered_has_no_time_and_nothing_to_undo(boxes: CocoList, tmp_path: Path) -> None:
    empty = Answers(tmp_path / "b.jsonl", boxes, n_points=4)
    assert empty.median_seconds is None
    assert empty.undo() is None
