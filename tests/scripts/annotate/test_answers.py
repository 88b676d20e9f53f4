import json
from pathlib import Path
from typing import Any

import pytest

from clinbundles.scripts.annotate.answers import Answers, sole_use
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
    kept = {a["id"]: a["bbox"] for several in answers.boxes.annotations.values() for a in several}
    assert answers.write_list(tmp_path / "points.json", boxes=kept) == 3
    item = LoadInstancesd("label")({"label": str(tmp_path / "points.json"), "image_id": 5})
    assert item["supervision"].tolist() == [POINTS, POINTS, BOX]
    assert item["points"][0, :2].tolist() == [[1.5, 42.5], [3.5, 45.5]]
    assert item["point_labels"].tolist() == [[0, 1], [1, -1], [-1, -1]]
    content = json.loads((tmp_path / "points.json").read_text())
    assert {"seed": 0, "answers": 3, "median_seconds_per_point": 1.0}.items() <= content["info"].items()
    assert not [a for a in content["annotations"] if "segmentation" in a]
    assert len(content["annotations"]) == 6


def test_the_list_keeps_its_categories_and_leaves_out_what_was_not_asked(
    boxes: CocoList, content: dict[str, Any], tmp_path: Path
) -> None:
    content["categories"], content["licenses"] = [{"id": 7, "name": "nucleus"}], [{"id": 1, "name": "CC0"}]
    boxes.path.write_text(json.dumps(content))
    number = boxes.annotations[5][1]["id"]
    Answers(tmp_path / "b.jsonl", boxes).write_list(tmp_path / "points.json", boxes={number: [1, 2, 3, 4]})
    written = json.loads((tmp_path / "points.json").read_text())
    assert (written["categories"], written["licenses"]) == (content["categories"], content["licenses"])
    assert [(a["id"], a["bbox"]) for a in written["annotations"]] == [(number, [1, 2, 3, 4])]


def test_a_first_line_that_was_cut_off_begins_anew(boxes: CocoList, tmp_path: Path) -> None:
    for torn in ("", '{"boxes_sha'):
        (tmp_path / "b.jsonl").write_text(torn)
        Answers(tmp_path / "b.jsonl", boxes, seed=0).add("182:0", x=1, y=1, label=1, seconds=1)
        assert len(Answers(tmp_path / "b.jsonl", boxes, seed=0).by_name) == 1


def test_a_full_disk_leaves_no_half_line(answers: Answers, boxes: CocoList, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="No space left"):
            answers.add("999:0", x=1, y=1, label=1, seconds=1)
    assert "999:0" not in answers.by_name
    answers.add("998:0", x=1, y=1, label=1, seconds=1)
    assert Answers(answers.path, boxes, n_points=4, seed=0).by_name == answers.by_name
    assert len(answers.by_name) == 4


def test_two_processes_do_not_write_the_same_answers(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    refused = pytest.raises(ValueError, match=r"a\.jsonl: another clinbundles annotate is writing")
    with sole_use(first), sole_use(second), refused, sole_use(first):
        pass
    with sole_use(first):
        pass


def test_nothing_answered_has_no_time_and_nothing_to_undo(boxes: CocoList, tmp_path: Path) -> None:
    empty = Answers(tmp_path / "b.jsonl", boxes, n_points=4)
    assert empty.median_seconds is None
    assert empty.undo() is None
