"""Real engines whose store breaks: each costs one warning, and the local record is complete."""

import json
import logging
import os
import socket
import threading
import time
from pathlib import Path

import pytest
from ignite.engine import Events

# MLflow's queries use an option that SQLAlchemy gives up, and its pools are closed by the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def warnings(caplog):
    """Read what the tracking has warned of."""
    caplog.set_level(logging.WARNING)
    return lambda: [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.fixture
def dripping():
    """A server that answers every request with one byte each fifth of a second, without an end."""
    listener = socket.create_server(("127.0.0.1", 0))
    end = threading.Event()

    def drip(connection):
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n")
            while not end.wait(0.2):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=drip, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    end.set()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


class At:
    """Do something when an epoch begins."""

    def __init__(self, epoch, action):
        self.epoch, self.action = epoch, action

    def attach(self, engine):
        engine.add_event_handler(Events.EPOCH_STARTED(once=self.epoch), lambda _: self.action())


def is_complete(record, epochs):
    """Tell whether a record has every iteration and the end."""
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    steps = [x["step"] for x in lines if x["what"] == "metrics" and x["unit"] == "iteration"]
    return steps == list(range(1, 4 * epochs + 1)) and lines[-1]["values"] == {"status": "FINISHED"}


def test_a_server_that_answers_drop_by_drop_holds_no_training(
    handler, trainer, dripping, monkeypatch, tmp_path, warnings
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    began = time.monotonic()
    with pytest.raises(ConnectionError, match="no whole answer within 3 s"):
        trainer([handler(kind="training", tracking_uri=dripping)]).run()
    assert time.monotonic() - began < 6
    monkeypatch.setattr("clinbundles.engines.tracking.record.FIRST_PAUSE_S", 60.0)
    trainer([handler(kind="training", tracking_uri=dripping, on_unreachable="warn")]).run()
    assert time.monotonic() - began < 15
    assert len(warnings()) == 1
    assert "no whole answer within 3 s" in warnings()[0]
    assert is_complete(tmp_path / "out" / "run_record.jsonl", 2)


def overwrite(database):
    """Write nonsense over the pages of a file, from its second on."""
    size = database.stat().st_size
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda database: os.truncate(database, database.stat().st_size // 3), "does not answer (MlflowException)"),
        (overwrite, "does not answer (MlflowException)"),
        (os.remove, "was deleted or replaced during the run"),
    ],
)
def test_a_database_that_is_cut_spoilt_or_deleted_in_mid_run_is_one_warning(
    harm, words, handler, trainer, uri, tmp_path, warnings
):
    database = Path(uri.removeprefix("sqlite:///"))
    engine = trainer([At(3, lambda: harm(database)), handler(kind="training")], epochs=5)
    engine.run()
    assert engine.state.epoch == 5
    assert len(warnings()) == 1
    assert words in warnings()[0]
    assert "run_record.jsonl has all values" in warnings()[0]
    assert is_complete(tmp_path / "out" / "run_record.jsonl", 5)


def test_a_run_or_an_experiment_that_is_deleted_in_mid_run_is_one_warning(handler, trainer, runs, tmp_path, warnings):
    def delete():
        client, (run,) = runs()
        client.delete_experiment(run.info.experiment_id)

    trainer([At(3, delete), handler(kind="training")], epochs=5).run()
    assert len(warnings()) == 1
    assert "was deleted in MLflow. The run goes on" in warnings()[0]
    assert is_complete(tmp_path / "out" / "run_record.jsonl", 5)


@pytest.mark.parametrize("text", ["", '{"run_id": "4f', "[1]", '{"run_id": 7, "run_name": ["x"]}'])
def test_a_torn_note_of_the_run_to_resume_is_one_warning_and_a_new_run(
    text, handler, trainer, runs, tmp_path, warnings
):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text(text)
    trainer([handler(kind="training", resume=True)]).run()
    assert len(warnings()) == 1
    assert str(tmp_path / "out" / "run.json") in warnings()[0]
    _, (run,) = runs()
    assert run.info.status == "FINISHED"
    assert json.loads((tmp_path / "out" / "run.json").read_text())["run_id"] == run.info.run_id
