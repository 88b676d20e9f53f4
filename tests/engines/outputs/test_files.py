import csv
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clinbundles.engines.outputs.files import (
    distinct_names,
    distinct_stems,
    replacing,
    write_atomically,
    write_csv_atomically,
)

PATHS = st.lists(
    st.lists(st.sampled_from(["a", "A", "a_a", "b.png", "a.png", "a.PNG", "a.jpg"]), min_size=1, max_size=4)
)


def save_array(path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, np.arange(3))


def save_weights(path: Path) -> None:
    with path.open("wb") as stream:
        torch.save({"w": torch.ones(2)}, stream)


WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("µ"),
    "bytes": lambda path: path.write_bytes(b"\0\1"),
    "table": lambda path: pd.DataFrame({"a": [1]}).to_csv(path, index=False),
    "picture": lambda path: Image.new("L", (3, 2)).save(path, format="PNG"),
    "array": save_array,
    "state dict": save_weights,
    "folder": lambda path: (path.mkdir(), (path / "zarr.json").write_text("{}")),
}


def content(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in [path, *path.rglob("*")] if p.is_file()}


@pytest.mark.parametrize("kind", WRITERS)
def test_anything_a_callback_writes_is_there_only_when_it_is_whole(tmp_path: Path, kind: str) -> None:
    WRITERS[kind](tmp_path / "expected")
    with replacing(tmp_path / "result") as partial:
        WRITERS[kind](partial)
        assert not (tmp_path / "result").exists()
    assert content(tmp_path / "result") == content(tmp_path / "expected")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "result"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("kind", WRITERS)
def test_after_a_failure_the_old_file_is_there_and_nothing_else(
    tmp_path: Path, kind: str, error: type[BaseException]
) -> None:
    (tmp_path / "result").write_text("old")

    def fail_at_the_end() -> None:
        with replacing(tmp_path / "result") as partial:
            WRITERS[kind](partial)
            raise error

    with pytest.raises(error):
        fail_at_the_end()
    assert content(tmp_path) == {"result": b"old"}


def test_a_part_of_a_file_that_a_kill_leaves_is_not_taken_for_a_file(tmp_path: Path) -> None:
    with replacing(tmp_path / "model.pt") as partial:
        partial.write_bytes(b"half")
        assert partial.parent == tmp_path
        assert partial.name.startswith(".")
        assert not list(tmp_path.glob("*.pt"))


def test_permissions_are_those_of_any_new_file_or_those_the_file_had(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    path = tmp_path / "result.json"
    write_atomically(path, "1")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    path.chmod(0o640)
    write_atomically(path, "2")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.read_text() == "2"


def test_a_link_stays_a_link_to_the_file_that_is_written(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "model.pt").symlink_to(tmp_path / "disk" / "model.pt")
    for text in ("1", "2"):
        write_atomically(tmp_path / "model.pt", text)
        assert (tmp_path / "disk" / "model.pt").read_text() == text
    assert (tmp_path / "model.pt").is_symlink()
    assert len(os.listdir(tmp_path / "disk")) == 1


def test_a_name_as_long_as_a_disk_takes_can_be_written(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("ö" * 125 + ".json"), "1")
    assert len(os.listdir(tmp_path)) == 1


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    for write in (lambda path: write_atomically(path, ""), lambda path: write_csv_atomically(path, [{"a": 1}])):
        with pytest.raises(FileNotFoundError, match=r"folder .*nowhere does not exist, so table\.csv cannot be"):
            write(tmp_path / "nowhere" / "table.csv")


def test_a_table_of_rows_gives_back_what_was_written(tmp_path: Path) -> None:
    rows = [{"image": "a, b.png", "failure": 'say "no"\nagain'}, {"image": "µ", "failure": ""}]
    write_csv_atomically(tmp_path / "table.csv", rows)
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as stream:
        assert list(csv.DictReader(stream)) == rows


def test_files_of_one_name_are_told_apart_by_as_few_folders_as_it_takes() -> None:
    names = ["a/x/1.png", "b/x/1.png", "y/1.png", "2.png"]
    paths = [Path(p) for p in ("/d/a/x/1.png", "/d/b/x/1.png", "/d/b/y/1.png", "/d/b/2.png")]
    assert distinct_names([*paths, paths[-1]]) == dict(zip(paths, names, strict=True))
    assert distinct_names([]) == {}


def test_outputs_are_named_by_the_stem_and_by_more_only_where_two_files_share_it() -> None:
    expected = {
        "/d/p1/frame_001.jpg": "p1_frame_001",
        "/d/p2/frame_001.jpg": "p2_frame_001",
        "/d/p1/frame_002.jpg": "frame_002.jpg",
        "/d/p1/frame_002.png": "frame_002.png",
        "/d/p1/im0001.ppm.gz": "im0001",
        "/d/p1/1.2.840.5": "1.2.840.5",
        "/d/p1/1.2.840.6": "1.2.840.6",
        "/d/p1/x.jpg": "p1_x.jpg",
        "/d/p1_x.jpg": "p1_x",
        "/d/p2/x.jpg": "p2_x",
        "/d/p1/y.png": "y_2",
        "/d/p1/Y.png": "Y",
    }
    stems = distinct_stems(Path(path) for path in expected)
    assert {path.as_posix(): stem for path, stem in stems.items()} == expected


def test_a_name_that_is_taken_is_given_to_no_file() -> None:
    a, b = Path("/d/p1/a.png"), Path("/d/p1/b.png")
    assert distinct_stems([a, b], taken=["A", "a.png"]) == {a: "p1_a", b: "b"}


@given(PATHS)
def test_no_two_files_share_a_name_and_the_order_of_the_files_does_not_matter(parts: list[list[str]]) -> None:
    files = [Path("/", *folders) for folders in parts]
    names, stems = distinct_names(files), distinct_stems(files)
    assert len(set(names.values())) == len({stem.casefold() for stem in stems.values()}) == len(set(files))
    assert not any("/" in stem for stem in stems.values())
    assert (names, stems) == (distinct_names(files[::-1]), distinct_stems(files[::-1]))


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("older")

    def write() -> None:
        with replacing(tmp_path / "a.csv") as partial:
            partial.write_text("half of")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left") as caught:
        write()
    assert caught.value.filename == str(tmp_path / "a.csv")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.csv", "older")]


def test_a_name_of_bytes_that_are_no_text_keeps_the_table(tmp_path: Path) -> None:
    name = os.fsdecode(b"b\xe9b\xe9.jpg")
    write_csv_atomically(tmp_path / "t.csv", [{"image": name}, {"image": "é.jpg"}])
    assert (tmp_path / "t.csv").read_text(encoding="utf-8").split() == ["image", r"b\udce9b\udce9.jpg", "é.jpg"]


def test_no_name_in_a_table_is_a_formula_for_a_spreadsheet_and_each_is_still_the_path_of_its_file() -> None:
    files = [Path(f"/data/x/{first}1.png") for first in "=+-@a"] + [Path("/data/=y/1.png"), Path("/data/x/1.png")]
    names = distinct_names(files)
    assert [names[file] for file in files[:5]] == ["./=1.png", "./+1.png", "./-1.png", "./@1.png", "a1.png"]
    assert names[files[5]] == "./=y/1.png"
    assert all(file.match(str(Path(names[file]))) for file in files)
