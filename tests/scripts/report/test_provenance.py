import json
import sys
from pathlib import Path

import pytest

from clinbundles.engines.data_hash import hash_facts
from clinbundles.scripts.report.provenance import command_of, run_of
from clinbundles.scripts.report.results import HASH, RUN


def test_a_run_has_every_field_and_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [{"image": "a.png", "fixations": [[0.5, 0.5, 200]]}, {"image": "b.png"}]
    facts = {"name": "eyes", "seed": 3, **hash_facts(["a"]), "gaze": {"source": "simulated"}}
    (tmp_path / "list.json").write_text(json.dumps({**facts, "training": items[:1], "test": items[1:]}))
    monkeypatch.setattr(sys, "argv", ["x", "reproduce", "toy", "--datalists", f"eyes={tmp_path}/list.json"])
    run = run_of(tmp_path / "list.json", verb="reproduce", seeds=[0], scale="cpu")
    assert run.keys() == RUN.keys()
    assert all(RUN[name].holds(value) for name, value in run.items())
    assert run["data_sha256"] == hash_facts(["a"])["data_sha256"]
    assert run["command"] == "clinbundles reproduce toy --datalists eyes=list.json"
    assert (run["split"], run["gaze"]) == ("1/0/1 images, seed 3, values on test", "simulated")
    assert str(tmp_path) not in json.dumps(run)


def test_what_is_not_known_is_said_to_be_not_recorded(tmp_path: Path) -> None:
    run = run_of(tmp_path / "absent.json", verb="audit", seeds=[], scale="cpu")
    assert [run[f"{name}_sha256"] for name in ("data", "split", "gaze")] == ["not recorded", "not recorded", "none"]
    assert HASH.holds(run["data_sha256"])


def test_a_command_keeps_what_is_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/clinbundles", "audit", "--max_epochs", "80", "--channels=[4,8]"])
    assert command_of("audit") == "clinbundles audit --max_epochs 80 '--channels=[4,8]'"
