import json
import sys
from pathlib import Path

import pytest

from clinbundles.scripts.bench.measurements import add_measurements, as_metric

ROWS = {"ours": {"ms": as_metric([3, 1, 2.00004]), "operations": {"value": 0.5}}, "theirs": {"ms": {"value": 4}}}


def add(file: Path, bundle: str, name: str, rows: dict = ROWS) -> None:
    add_measurements(file, bundle, name, rows, device="cpu", threads=1, scale="2 rounds")


def test_benches_add_to_one_file_and_a_run_takes_the_place_of_its_older_self(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["cli.py", "bench", "blur", "--json", "/data/mine.json", "--size", "8"])
    file = tmp_path / "bench.json"
    add(file, "one", "blur")
    add(file, "one", "training")
    add(file, "two", "stages")
    add(file, "one", "blur", {"ours": {"ms": {"value": 9}}})
    content = json.loads(file.read_text())
    assert {bundle: list(part["runs"]) for bundle, part in content.items()} == {
        "one": ["training, 1 CPU thread", "blur, 1 CPU thread"],
        "two": ["stages, 1 CPU thread"],
    }
    assert content["one"]["runs"]["blur, 1 CPU thread"]["command"] == "clinbundles bench blur --size 8"
    blur = [result for result in content["one"]["results"] if result["run"] == "blur, 1 CPU thread"]
    assert [(result["column"], result["metrics"]) for result in blur] == [("ours", {"ms": {"value": 9}})]
    assert content["two"]["results"][0]["metrics"]["ms"] == {"value": 2, "low": 1, "high": 3}


@pytest.mark.parametrize("text", ["half a file", "[1]", '{"one": {"runs": {}}}'])
def test_a_file_of_something_else_is_refused_and_kept(tmp_path: Path, text: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json"):
        add(file, "one", "blur")
    assert file.read_text() == text
