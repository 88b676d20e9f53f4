from pathlib import Path

import pytest

from clinbundles.engines.tracking.store import RunStore, default_tracking_uri, what_failed

ROOT = Path(__file__).parents[3]


def test_bundles_of_a_clone_share_a_database_and_one_from_elsewhere_leaves_its_folder_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_tracking_uri(ROOT / "bundles" / "any") == f"sqlite:///{ROOT.as_posix()}/runs/mlflow.db"
    assert default_tracking_uri(tmp_path / "b") == f"sqlite:///{tmp_path.as_posix()}/runs/mlflow.db"


def test_a_database_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match="cannot be written; give another --tracking_uri"):
        RunStore(f"sqlite:///{tmp_path / 'file' / 'x.db'}", experiment="e", name="n", previous=None)


def test_a_failure_is_told_without_the_password():
    text = what_failed("http://doe:secret@host:5000", OSError("no route to doe:secret@host:5000\nTraceback"))
    assert "http://host:5000" in text
    assert "OSError: no route to host:5000)" in text
    assert "secret" not in text
