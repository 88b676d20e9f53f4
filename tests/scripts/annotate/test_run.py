"""The command as a person starts it, and the page in a real browser."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clinbundles.scripts import cli
from clinbundles.transforms.readers.coco import CocoList, read_coco

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Served:
    """A running command, and what it said at its end."""

    def __init__(self, images: Path, boxes: CocoList, *words: str) -> None:
        command = [sys.executable, "-m", "clinbundles.scripts.cli", "annotate", str(images), str(boxes.path)]
        self.process = subprocess.Popen(
            [*command, "--port", str(free_port()), *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        self.said = ""
        for line in self.process.stdout:
            self.said += line
            if line.startswith("open "):
                break
        self.address = self.said.split()[-1]

    def stop(self) -> str:
        self.process.send_signal(signal.SIGINT)
        self.said += self.process.communicate(timeout=30)[0]
        return self.said


@pytest.fixture
def served(images: Path, boxes: CocoList) -> Iterator[Served]:
    made = Served(images, boxes, "--n_points", "2", "--annotator", "Ann B")
    yield made
    made.process.kill()


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
        assert page.inner_text("#error") == ""
        browser.close()
    said = served.stop()
    assert "6 boxes came in, 6 are used, 0 are left out" in said
    assert re.search(r"3 answers, median [\d.]+ s an answer", said)
    written = read_coco(boxes.path.with_name("boxes_points_Ann_B.json"))
    labels = [label for several in written.annotations.values() for a in several for label in a.get("point_labels", ())]
    assert labels == [1, 0, 0]


@pytest.fixture
def not_served(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Let the command end at once, and note where it would have served."""
    calls: list[dict] = []
    monkeypatch.setattr("uvicorn.run", lambda app, **options: calls.append(options))
    return calls


def test_the_command_goes_on_where_it_stopped(
    images: Path, boxes: CocoList, not_served: list[dict], capsys: pytest.CaptureFixture
) -> None:
    words = ["annotate", str(images), str(boxes.path)]
    cli.main(words)
    answers = boxes.path.with_name("boxes_points_annotator.jsonl")
    reply = {"question": f"{boxes.annotations[5][0]['id']}:0", "x": 1, "y": 45, "label": 1, "seconds": 1.0}
    answers.write_text(answers.read_text() + json.dumps(reply) + "\n")
    cli.main(words)
    said = capsys.readouterr().out
    assert "0 of 24 points have an answer" in said
    assert "1 of 24 points have an answer" in said
    assert "1 answers, median 1.0 s an answer" in said
    assert not_served[0]["host"] == "127.0.0.1"


def test_beyond_this_computer_the_address_has_a_token(
    images: Path, boxes: CocoList, not_served: list[dict], capsys: pytest.CaptureFixture
) -> None:
    cli.main(["annotate", str(images), str(boxes.path), "--host", "0.0.0.0"])
    assert re.search(r"open http://0\.0\.0\.0:8008/\?token=[\w-]{20,}", capsys.readouterr().out)


def test_another_way_to_ask_is_refused(images: Path, boxes: CocoList) -> None:
    with pytest.raises(SystemExit, match="ask is 'clever', expected random or uncertain"):
        cli.main(["annotate", str(images), str(boxes.path), "--ask", "clever"])
