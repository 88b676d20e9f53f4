from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from clinbundles.scripts.annotate.answers import Answers
from clinbundles.scripts.annotate.app import make_app
from clinbundles.scripts.annotate.questions import Points, make_questions
from clinbundles.transforms.readers.coco import CocoList


def client(images: Path, boxes: CocoList, folder: Path, *, token: str = "", host: str = "127.0.0.1") -> TestClient:
    questions, _ = make_questions(images, boxes, n_points=2)
    answers = Answers(folder / "a.jsonl", boxes)
    points = Points(boxes, n_points=2, seed=0)
    return TestClient(make_app(questions, points, answers, annotator="ann", token=token, host=host))


@pytest.fixture
def page(images: Path, boxes: CocoList, tmp_path: Path) -> TestClient:
    return client(images, boxes, tmp_path)


def test_questions_come_one_after_the_other_and_undo_goes_back(page: TestClient) -> None:
    first = page.get("/state").json()
    assert (first["done"], first["total"], first["seconds"]) == (0, 12, None)
    for path in (f"/crop/{first['question']}", f"/overview/{first['question']}", f"/crop/{first['next']}"):
        picture = page.get(path)
        assert picture.headers["content-type"] == "image/png"
    reply = {"question": first["question"], "label": 1, "seconds": 0.8}
    second = page.post("/answer", json=reply).json()
    assert (second["done"], second["question"], second["seconds"]) == (1, first["next"], 0.8)
    assert page.post("/undo", json={}).json() == first


def test_at_the_end_there_is_no_question(page: TestClient) -> None:
    state = page.get("/state").json()
    while state["question"] is not None:
        state = page.post("/answer", json={"question": state["question"], "label": 0, "seconds": 1}).json()
    assert (state["done"], state["next"]) == (12, None)


def test_the_page_loads_nothing_from_elsewhere(page: TestClient) -> None:
    text = page.get("/").text
    assert "Is the point" in text
    assert "http" not in text
    assert 'max="12"' in text


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ({"question": "none:0", "label": 1, "seconds": 1}, 404),
        ({"question": "182:0", "label": 2, "seconds": 1}, 422),
        ({"question": "182:0", "label": 1, "seconds": -1}, 422),
        ({"label": 1}, 422),
    ],
)
def test_what_is_no_answer_is_not_saved(page: TestClient, reply: dict, status: int) -> None:
    assert page.post("/answer", json=reply).status_code == status
    assert page.get("/state").json()["done"] == 0


def test_images_are_named_by_question_alone(page: TestClient) -> None:
    for name in ("..%2F..%2Fetc%2Fpasswd", "07761fa3.png", "182"):
        assert page.get(f"/crop/{name}").status_code == 404


def test_with_a_token_no_request_goes_without(images: Path, boxes: CocoList, tmp_path: Path) -> None:
    guarded = client(images, boxes, tmp_path, token="secret", host="0.0.0.0")
    question = guarded.get("/state?token=secret").json()["question"]
    for path in ("/", "/state", f"/crop/{question}", f"/overview/{question}"):
        assert guarded.get(path).status_code == 403
        assert guarded.get(f"{path}?token=wrong").status_code == 403
        assert guarded.get(f"{path}?token=secret").status_code == 200
    reply = {"question": question, "label": 1, "seconds": 1}
    assert guarded.post("/answer", json=reply).status_code == 403
    assert guarded.post("/undo", json={}).status_code == 403
    assert guarded.post("/answer?token=secret", json=reply).json()["done"] == 1


def test_a_page_elsewhere_cannot_reach_it_under_a_name_of_its_own(page: TestClient) -> None:
    assert page.get("/state", headers={"host": "evil.example"}).status_code == 400
