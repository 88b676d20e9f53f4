import json
from concurrent.futures import ThreadPoolExecutor
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
    kept = {question.annotation_id: question.box for question in questions}
    app = make_app(
        questions,
        Points(boxes, seed=0),
        answers,
        annotator="ann",
        token=token,
        host=host,
        finish=lambda: answers.write_list(folder / "points.json", boxes=kept),
    )
    made = TestClient(app, base_url="http://127.0.0.1:8008")
    made.params = {"session": app.state.session}
    return made


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


def test_at_the_end_there_is_no_question_and_the_list_is_written(page: TestClient, tmp_path: Path) -> None:
    state = page.get("/state").json()
    while state["question"] is not None:
        assert not (tmp_path / "points.json").exists()
        state = page.post("/answer", json={"question": state["question"], "label": 0, "seconds": 1}).json()
    assert (state["done"], state["next"]) == (12, None)
    assert json.loads((tmp_path / "points.json").read_text())["info"]["answers"] == 12


def test_the_first_answer_to_a_question_stays(page: TestClient) -> None:
    first = page.get("/state").json()["question"]
    page.post("/answer", json={"question": first, "label": 1, "seconds": 1})
    again = page.post("/answer", json={"question": first, "label": 0, "seconds": 9}).json()
    assert (again["done"], again["seconds"]) == (1, 1)


def test_answers_that_come_at_once_are_all_kept(page: TestClient, boxes: CocoList, tmp_path: Path) -> None:
    names = [f"{a['id']}:{number}" for several in boxes.annotations.values() for a in several for number in (0, 1)]

    def answer(name: str) -> int:
        return page.post("/answer", json={"question": name, "label": 1, "seconds": 1}).status_code

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(answer, names * 2)) == [200] * 24
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 1 + 12


def test_only_the_page_of_this_start_can_answer_or_undo(page: TestClient) -> None:
    reply = {"question": page.get("/state").json()["question"], "label": 1, "seconds": 1}
    page.post("/answer", json=reply)
    for session in ("", "of another start"):
        for path in ("/answer", "/undo"):
            refused = page.post(path, json=reply, params={"session": session})
            assert refused.status_code == 409
            assert "load it again" in refused.json()["detail"]
    assert page.get("/state").json()["done"] == 1


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
        ({"question": "182:0", "label": 1, "seconds": float("inf")}, 422),
        ({"label": 1}, 422),
    ],
)
def test_what_is_no_answer_is_not_saved(page: TestClient, reply: dict, status: int) -> None:
    content = json.dumps(reply).replace("Infinity", "1e999")
    assert page.post("/answer", content=content, headers={"content-type": "application/json"}).status_code == status
    assert page.get("/state").json()["done"] == 0


def test_images_are_named_by_question_alone(page: TestClient) -> None:
    for name in ("..%2F..%2Fetc%2Fpasswd", "07761fa3.png", "182"):
        assert page.get(f"/crop/{name}").status_code == 404


def test_with_a_token_no_request_goes_without(images: Path, boxes: CocoList, tmp_path: Path) -> None:
    guarded = client(images, boxes, tmp_path, token="secret", host="0.0.0.0")
    question = guarded.get("/state", params={"token": "secret"}).json()["question"]
    for path in ("/", "/state", f"/crop/{question}", f"/overview/{question}"):
        assert guarded.get(path).status_code == 403
        assert guarded.get(path, params={"token": "wrong"}).status_code == 403
        assert guarded.get(path, params={"token": "secret"}).status_code == 200
    reply = {"question": question, "label": 1, "seconds": 1}
    assert guarded.post("/answer", json=reply).status_code == 403
    assert guarded.post("/undo", json={}).status_code == 403
    assert guarded.post("/answer", json=reply, params={"token": "secret"}).json()["done"] == 1


def test_a_page_elsewhere_cannot_reach_it_under_a_name_of_its_own(page: TestClient) -> None:
    assert page.get("/state", headers={"host": "evil.example"}).status_code == 400
