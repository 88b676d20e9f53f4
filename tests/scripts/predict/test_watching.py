import time
from pathlib import Path

import pytest

from clinbundles.scripts import bars
from clinbundles.scripts.predict import watching
from clinbundles.scripts.predict.studies import DONE, FAILED, Status, Study, write_status


def test_studies_that_get_a_status_are_counted_while_jobs_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watching, "SECONDS", 0.05)
    monkeypatch.setattr(bars, "SECONDS", 0.0)
    studies = [Study(name, tmp_path / name) for name in "abcd"]
    write_status(tmp_path, Status("a", DONE))
    write_status(tmp_path, Status("b", FAILED))  # which is tried again
    with watching.watched(tmp_path, studies):
        for name in "bc":
            time.sleep(0.2)
            write_status(tmp_path, Status(name, DONE))
        time.sleep(0.2)
        said = capsys.readouterr().out
        assert "applying: 1 of 3 studies" in said
        assert "applying: 2 of 3 studies" in said
    assert "3 of 3" not in capsys.readouterr().out
