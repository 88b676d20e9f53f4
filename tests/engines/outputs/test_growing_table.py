"""Tests of a table that has every row as soon as it is added."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clinbundles.engines.outputs.growing_table import GrowingTable, read_whole_rows


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_row_is_in_the_file_as_soon_as_it_is_added_and_the_first_replaces_an_older_file(tmp_path: Path) -> None:
    path = tmp_path / "out" / "per_image.csv"
    table = GrowingTable(path)
    for number, name in enumerate(["a.png", 'b "2",\nc.png', "caf\udce9.png"], start=1):
        table.add({"image": name, "cells": number})
        assert len(rows_of(path)) == number
    assert [row["image"] for row in rows_of(path)] == ["a.png", 'b "2",\nc.png', r"caf\udce9.png"]
    GrowingTable(path).add({"image": "z.png"})
    assert rows_of(path) == [{"image": "z.png"}]


def test_a_row_with_another_column_gives_one_to_all_rows(tmp_path: Path) -> None:
    table = GrowingTable(tmp_path / "t.csv")
    for row in ({"image": "a", "failure": "empty."}, {"image": "b", "failure": "", "height": 3}, {"image": "c"}):
        table.add(row)
    assert rows_of(table.path) == [
        {"image": "a", "failure": "empty.", "height": ""},
        {"image": "b", "failure": "", "height": "3"},
        {"image": "c", "failure": "", "height": ""},
    ]


def test_a_killed_process_leaves_the_rows_that_it_had_added(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    program = f"""
import os, signal
from clinbundles.engines.outputs.growing_table import GrowingTable
table = GrowingTable({str(path)!r})
for number in range(5):
    table.add({{"image": number}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ}, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert [row["image"] for row in rows_of(path)] == ["0", "1", "2", "3", "4"]
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]


def test_a_row_that_the_disk_has_no_room_for_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    program = f"""
import resource, signal
from pathlib import Path
from clinbundles.engines.outputs.growing_table import GrowingTable
table = GrowingTable({str(tmp_path / "t.csv")!r})
table.add({{"image": "a.png"}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    table.add({{"image": 200 * "b"}})
except OSError as error:
    print(Path(error.filename).name, error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "t.csv File too large\n", done.stderr
    assert (tmp_path / "t.csv").read_bytes() == b"image\r\na.png\r\n"


@pytest.mark.parametrize(
    "torn", ["b.p", "b.png,1", 'b.png,"cannot', 'b.png,"two\r\nlines, and', "b.png,1\r", b"caf\xc3"]
)
def test_a_torn_last_row_is_left_out_and_said(
    tmp_path: Path, torn: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path, whole = tmp_path / "t.csv", 'image,cells\r\n"a\r\n.png",2\r\n'
    path.write_bytes(whole.encode())
    assert read_whole_rows(path) == whole
    assert not caplog.messages
    path.write_bytes(whole.encode() + (torn.encode() if isinstance(torn, str) else torn))
    assert read_whole_rows(path) == whole
    assert "its last row is torn" in caplog.text
