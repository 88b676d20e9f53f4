import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from clinbundles.engines.tracking.store import RunStore, UnusableStoreError, default_tracking_uri, what_failed

ROOT = Path(__file__).parents[3]
OPEN_ONE = """
import sys
from clinbundles.engines.tracking.store import RunStore
store = RunStore(sys.argv[1], experiment="e", name="n", previous=None)
print("go", flush=True)
sys.stdin.readline()
client, run_id = store.open()
client.log_param(run_id, "who", sys.argv[2])
"""

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_bundles_of_a_clone_share_a_database_and_one_from_elsewhere_leaves_its_folder_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_tracking_uri(ROOT / "bundles" / "any") == f"sqlite:///{ROOT.as_posix()}/runs/mlflow.db"
    assert default_tracking_uri(tmp_path / "b") == f"sqlite:///{tmp_path.as_posix()}/runs/mlflow.db"


def test_a_database_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match="cannot be written; give another --tracking_uri"):
        RunStore(f"sqlite:///{tmp_path / 'file' / 'x.db'}", experiment="e", name="n", previous=None)


def test_a_store_says_where_it_is_for_any_folder_and_without_a_password(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "of me").mkdir()
    file = tmp_path / "of me" / "x.db"
    place = RunStore("sqlite:///of me/x.db", experiment="e", name="n", previous=None).place
    assert place == f"in {file}: mlflow ui --backend-store-uri 'sqlite:///{file}' shows it"
    assert RunStore("http://doe:secret@h:5000", experiment="e", name="n", previous=None).place == "on http://h:5000"


def test_a_failure_is_told_without_the_password():
    text = what_failed("http://doe:secret@host:5000", OSError("no route to doe:secret@host:5000\nTraceback"))
    assert "http://host:5000" in text
    assert "OSError: no route to host:5000)" in text
    assert "secret" not in text


def names_in(uri):
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("e")
    return sorted(run.info.run_name for run in client.search_runs([experiment.experiment_id]))


def test_four_first_runs_at_once_are_four_runs_in_one_database(tmp_path):
    uri = f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    all_four = [subprocess.Popen([sys.executable, "-c", OPEN_ONE, uri, str(n)], **pipes) for n in range(4)]
    for process in all_four:
        assert process.stdout.readline() == "go\n"
    for process in all_four:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in all_four:
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
    assert names_in(uri) == ["n", "n-2", "n-3", "n-4"]


def test_a_kill_while_the_database_is_made_leaves_none(tmp_path, monkeypatch):
    database = tmp_path / "mlflow.db"
    database.touch()  # as a check of whether it can be written once left it

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill)
        with pytest.raises(KeyboardInterrupt):
            RunStore(f"sqlite:///{database}", experiment="e", name="n", previous=None).open()
    assert database.stat().st_size == 0
    RunStore(f"sqlite:///{database}", experiment="e", name="n", previous=None).open()
    assert names_in(f"sqlite:///{database}") == ["n"]
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_sigkill_while_the_database_is_made_leaves_none_and_its_part_is_cleared_away(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen([sys.executable, "-c", OPEN_ONE, uri, "0"], **pipes) as process:
        process.stdout.readline()
        process.stdin.write("\n")
        process.stdin.flush()
        while not any(part.stat().st_size for part in tmp_path.glob(".mlflow.*.part")):
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
    assert list(tmp_path.glob(".mlflow.*.part"))
    assert not (tmp_path / "mlflow.db").exists() or (tmp_path / "mlflow.db").stat().st_size == 0
    RunStore(uri, experiment="e", name="n", previous=None).open()
    assert names_in(uri) == ["n"]
    assert {path.name for path in tmp_path.iterdir()} <= {"mlflow.db", ".mlflow.db.lock", "mlruns"}


def test_a_database_that_another_program_left_half_made_is_one_sentence(tmp_path, template):
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("CREATE TABLE experiments (name TEXT)")
        connection.execute("CREATE TABLE _alembic_tmp_tags (name TEXT)")
    store = RunStore(f"sqlite:///{tmp_path / 'mlflow.db'}", experiment="e", name="n", previous=None)
    with pytest.raises(UnusableStoreError, match=r"mlflow\.db was left half made, .*; delete it"):
        store.open()


def test_a_deleted_experiment_is_named_with_what_restores_it(uri):
    client = mlflow.MlflowClient(uri)
    number = client.create_experiment("e")
    client.delete_experiment(number)
    store = RunStore(uri, experiment="e", name="n", previous=None)
    with pytest.raises(UnusableStoreError, match=rf"The experiment e was deleted .* restore -x {number}\)") as caught:
        store.open()
    assert what_failed(uri, caught.value) == str(caught.value)
    client.restore_experiment(number)
    store.open()
    assert names_in(uri) == ["n"]
