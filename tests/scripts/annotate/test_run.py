"""The command as a person starts it, and the page in a real browser."""

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clinbundles.scripts import cli
from clinbundles.transforms.points import LoadInstancesd
from clinbundles.transforms.readers.coco import CocoList, read_coco

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Served:
    """A running command, and what it said at its end."""

    def __init__(self, images: Path, boxes: CocoList, *words: str) -> None:
        command = [sys.executable, "-m", "clinbundles.scripts.cli", "annotate", str(images), str(boxes.path)]
        self.process = subprocess.Popen(
            [*command, "--port", "0", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        self.said = ""
        for line in self.process.stdout:
            self.said += line
            if line.startswith("open "):
                break
        self.address = self.said.split()[-1]

    def stop(self) -> str:
        self.process.terminate()  # which ends it as Ctrl-C does
        self.said += self.process.communicate(timeout=30)[0]
        return self.said


@pytest.fixture
def served(images: Path, boxes: CocoList) -> Iterator[Served]:
    made = Served(images, boxes, "--n_points", "2", "--annotator", "Ann B")
    yield made
    made.process.kill()
    made.process.communicate()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_a_person_answers_with_keys_and_undoes(served: Served, boxes: CocoList) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(served.address)
        page.wait_for_function("document.body.dataset.question !== undefined")
        names = []
        for key in ("1", "0", "1"):
            names.append(page.evaluate("document.body.dataset.question"))
            page.keyboard.press(key)
            page.wait_for_function(f"document.body.dataset.question !== '{names[-1]}'")
        assert "3 of 12 points" in page.inner_text("#count")
        page.keyboard.press("u")
        page.wait_for_function(f"document.body.dataset.question === '{names[-1]}'")
        page.click("#background")
        page.wait_for_function(f"document.body.dataset.question !== '{names[-1]}'")
        assert page.evaluate("document.getElementById('crop').naturalWidth") == 560
        for width in (1100, 360):  # a desk, a phone
            page.set_viewport_size({"width": width, "height": 800})
            place = page.locator("#crop").bounding_box()
            assert place is not None
            assert place["width"] == pytest.approx(place["height"], abs=1)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        for pressed in ("Control+0", "Alt+1", "Meta+u", "2"):
            page.keyboard.press(pressed)
        page.wait_for_timeout(200)
        assert "3 of 12 points" in page.inner_text("#count")
        assert page.inner_text("#error") == ""
        page.route("**/answer*", lambda route: route.abort())
        before = page.evaluate("document.body.dataset.question")
        page.keyboard.press("1")
        page.wait_for_function("document.getElementById('error').textContent.startsWith('Not saved')")
        page.unroute("**/answer*")
        assert page.evaluate("document.body.dataset.question") == before
        page.keyboard.press("1")
        page.wait_for_function("document.getElementById('count').textContent.startsWith('4 of 12')")
        assert page.inner_text("#error") == ""
        browser.close()
    said = served.stop()
    assert served.process.returncode == 0
    assert "6 boxes came in, 6 are used, 0 are left out" in said
    assert re.search(r"4 answers, median [\d.]+ s an answer", said)
    written = read_coco(boxes.path.with_name("boxes_points_Ann_B.json"))
    labels = [label for several in written.annotations.values() for a in several for label in a.get("point_labels", ())]
    assert sorted(labels) == [0, 0, 1, 1]


@pytest.fixture(autouse=True)
def not_served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Let the command end at once, and note where it would have served."""
    calls: list[tuple[str, int]] = []
    monkeypatch.setattr("uvicorn.Server.run", lambda _, sockets: calls.extend(s.getsockname()[:2] for s in sockets))
    return calls


def words(images: Path, boxes: CocoList, *more: str) -> list[str]:
    return ["annotate", str(images), str(boxes.path), "--port", "0", *more]


def test_the_command_goes_on_where_it_stopped(
    images: Path, boxes: CocoList, not_served: list[tuple[str, int]], capsys: pytest.CaptureFixture
) -> None:
    cli.main(words(images, boxes))
    answers = boxes.path.with_name("boxes_points_annotator.jsonl")
    reply = {"question": f"{boxes.annotations[5][0]['id']}:0", "x": 1, "y": 45, "label": 1, "seconds": 1.0}
    answers.write_text(answers.read_text() + json.dumps(reply) + "\n")
    cli.main(words(images, boxes, "--n_points", "5"))
    said = capsys.readouterr().out
    assert "0 of 24 points have an answer" in said
    assert "1 of 30 points have an answer" in said
    assert "1 answers, median 1.0 s an answer" in said
    assert {host for host, _ in not_served} == {"127.0.0.1"}


@pytest.mark.parametrize("more", [[], ["--token", ""]])
def test_beyond_this_computer_the_address_has_a_token(
    images: Path, boxes: CocoList, more: list[str], capsys: pytest.CaptureFixture
) -> None:
    cli.main(words(images, boxes, "--host", "0.0.0.0", *more))
    assert re.search(r"open http://0\.0\.0\.0:\d+/\?token=[\w-]{20,}", capsys.readouterr().out)


def test_a_box_that_cannot_be_asked_is_not_in_the_list(
    images: Path, boxes: CocoList, content: dict[str, Any], capsys: pytest.CaptureFixture
) -> None:
    content["annotations"][0]["bbox"], content["annotations"][1]["bbox"] = [300, 300, 9, 9], [250, 250, 9, 9]
    boxes.path.write_text(json.dumps(content))
    cli.main(words(images, boxes))
    assert "6 boxes came in, 5 are used, 1 are left out (1 whose box is outside the image" in capsys.readouterr().out
    item = LoadInstancesd("label")({"label": str(boxes.path.with_name("boxes_points_annotator.json")), "image_id": 5})
    assert item["boxes"][0].tolist() == [250, 250, 256, 256]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--ask", "clever"], "--ask is 'clever', expected random, uncertain"),
        (["--order", "up"], "--order is 'up', expected listed, shuffled"),
        (["--seed=-1"], "--seed is -1: expected a whole number from 0"),
        (["--output", "points.jsonl"], "--output is points.jsonl: expected a name of its own that ends in .json"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid --port 0: cannot be served at"),
    ],
)
def test_what_cannot_be_is_one_sentence(images: Path, boxes: CocoList, more: list[str], sentence: str) -> None:
    with pytest.raises(SystemExit, match=re.escape(sentence)):
        cli.main(words(images, boxes, *more))


def test_a_port_that_is_taken_is_one_sentence(images: Path, boxes: CocoList) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SystemExit, match=f"--host 127.0.0.1 --port {port}: cannot be served at"):
            cli.main(["annotate", str(images), str(boxes.path), "--port", str(port)])
    with pytest.raises(SystemExit, match="--port is 99999: expected a whole number from 0 to 65535"):
        cli.main(["annotate", str(images), str(boxes.path), "--port", "99999"])


def test_the_boxes_are_never_written_over(images: Path, boxes: CocoList) -> None:
    before = boxes.path.read_bytes()
    with pytest.raises(SystemExit, match="expected a name of its own"):
        cli.main(words(images, boxes, "--output", str(boxes.path)))
    assert boxes.path.read_bytes() == before


def test_two_annotators_never_share_answers(images: Path, boxes: CocoList) -> None:
    cli.main(words(images, boxes, "--annotator", "a b"))
    with pytest.raises(SystemExit, match="its answers are to annotator a b, now a_b"):
        cli.main(words(images, boxes, "--annotator", "a_b"))
    cli.main(words(images, boxes, "--annotator", "../../b"))
    names = {path.name for path in boxes.path.parent.glob("*.jsonl")}
    assert names == {"boxes_points_a_b.jsonl", "boxes_points_b.jsonl"}
