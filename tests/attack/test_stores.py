"""A store that is locked, cut, lost or answers nothing: the training goes on, and its own record is complete."""

import contextlib
import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

N_EPOCHS = 12
COMMAND = ["run", "ct_datasetgan", "train", "--channels", "[4,4,8,8,8,4]", "--batch_size", "4", "--seed", "1"]
COMMAND += ["--cache_rate", "0", "--max_epochs", str(N_EPOCHS), "--steps_per_epoch", "2", "--output_dir", "out"]
COMMAND += ["--tracking", "--on_unreachable", "warn"]


def locked(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        time.sleep(5)


def deleted(database: Path) -> None:
    database.unlink()


def cut(database: Path) -> None:
    os.truncate(database, 200_000)


@contextlib.contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that treats each connection so, until the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=treat, args=(connection,), daemon=True).start()

        def treat(connection: socket.socket) -> None:
            with contextlib.suppress(OSError), connection:
                answer(connection)

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def silent(connection: socket.socket) -> None:
    connection.settimeout(120)
    while connection.recv(4096):
        pass


def rude(connection: socket.socket) -> None:
    connection.recv(4096)


def nonsense(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>")


def broken(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")


def dripping(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10000\r\n\r\n{")
    for _ in range(10000):
        time.sleep(1)
        connection.sendall(b" ")


def check_whole(folder: Path, ending: Any) -> None:
    """The training ended well, said once that the store is gone, and has all that it did in its own record."""
    assert ending.code == 0, ending.said
    assert sum("MLflow" in line for line in ending.said.splitlines()) <= 1, ending.said
    lines = [json.loads(line) for line in (folder / "out" / "run_record.jsonl").read_text().splitlines()]
    epochs = [line["step"] for line in lines if line["what"] == "metrics" and "train_loss" in line["values"]]
    assert epochs == list(range(1, N_EPOCHS + 1))
    assert lines[-1]["what"] == "status"
    assert lines[-1]["values"] == {"status": "FINISHED"}
    assert (folder / "out" / "model.pt").is_file() or list(folder.rglob("model.pt"))


@pytest.mark.attack
@pytest.mark.parametrize("attack", [locked, deleted, cut])
def test_a_database_attacked_during_a_training_costs_a_warning(
    attack: Callable[[Path], None], copies: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    record, database = folder / "out" / "run_record.jsonl", folder / "mlflow.db"

    def strike() -> None:
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline:
            if record.is_file() and '"train_loss"' in record.read_text():
                attack(database)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=strike)
    thread.start()
    ending = copies.command([*COMMAND, "--tracking_uri", f"sqlite:///{database}"], folder, seconds=200)
    thread.join()
    check_whole(folder, ending)


@pytest.mark.parametrize(
    "answer",
    [rude, *(pytest.param(each, marks=pytest.mark.attack) for each in (silent, nonsense, broken, dripping))],
)
def test_a_server_that_is_none_costs_a_warning(
    answer: Callable[[socket.socket], None], copies: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    with server(answer) as address:
        ending = copies.command([*COMMAND, "--tracking_uri", address], folder, seconds=150)
    check_whole(folder, ending)
