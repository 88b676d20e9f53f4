"""Tests of hashes of files and folders."""

import os
from pathlib import Path

import pytest

from clinbundles.scripts.predict.hashes import hash_files, source_of
from clinbundles.scripts.predict.studies import Study


def test_a_folder_is_its_files_names_and_bytes(tmp_path: Path) -> None:
    for name, file, text in (("a", "x.png", "1"), ("b", "x.png", "1"), ("c", "y.png", "1"), ("d", "x.png", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text)
    (tmp_path / "b" / ".hidden").touch()
    a, b, c, d = (hash_files(tmp_path / name) for name in "abcd")
    assert a == b
    assert len({a, c, d}) == 3
    assert hash_files(tmp_path / "a" / "x.png") == hash_files(tmp_path / "c" / "y.png")
    assert source_of(Study("e", tmp_path / "e")) == ""


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(OSError, match=r"x\.png: is a pipe, a socket or a device, and no file"):
        hash_files(tmp_path)
