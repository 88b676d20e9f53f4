import io
import zipfile
from pathlib import Path

import pytest

from clinbundles.scripts.pack.archive import unzip, zipped


def test_the_same_files_give_the_same_bytes_in_any_order() -> None:
    first = zipped({"a/one.txt": b"1" * 500, "a/two.txt": b"2"})
    assert first == zipped({"a/two.txt": b"2", "a/one.txt": b"1" * 500})
    assert first != zipped({"a/one.txt": b"1" * 500, "a/two.txt": b"3"})


def test_a_zip_gives_its_files_back_with_modes_that_all_may_read() -> None:
    with zipfile.ZipFile(io.BytesIO(zipped({"b/x.json": b"{}", "a.txt": "µ".encode()}))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a.txt", "b/x.json"]
        assert archive.read("a.txt").decode() == "µ"
        assert {entry.external_attr >> 16 for entry in archive.infolist()} == {0o100644}


def write_zip(path: Path, entries: dict[str, bytes], *, mode: int = 0o100644, how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            entry = zipfile.ZipInfo()
            entry.filename = name  # as it is: what ZipInfo is given ends at a NUL
            entry.compress_type = how
            entry.external_attr = mode << 16
            archive.writestr(entry, content)
    return path


def test_a_packed_zip_is_unzipped_to_its_folder(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(zipped({"polyps/configs/train.json": b"{}"}))
    folder = unzip(tmp_path / "x.zip", tmp_path)
    assert folder == tmp_path / "polyps"
    assert (folder / "configs" / "train.json").read_bytes() == b"{}"


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"polyps/../../evil": b""}, "leads out of the folder"),
        ({"/etc/evil": b""}, "leads out of the folder"),
        ({"polyps/a\\b": b""}, "leads out of the folder"),
        ({"C:/a": b""}, "leads out of the folder"),
        ({"polyps/C:/a": b""}, "leads out of the folder"),
        ({"": b""}, "'' leads out of the folder"),
        ({"polyps/a": b"", ".": b""}, "'.' leads out of the folder"),
        ({"./polyps/a": b""}, "or is no name of a file"),
        ({"polyps//a": b"", "polyps/a": b""}, "or is no name of a file"),
        ({"polyps/a\0b": b""}, "is no name of a file"),
        ({"polyps/a\x1b[31m": b""}, "is no name of a file"),
        ({"polyps/" + "a" * 256: b""}, "is too long a name"),
        ({"polyps/" + "é" * 128: b""}, "is too long a name"),
        ({"polyps/" + "/".join(["a" * 200] * 6): b""}, "is too long a name"),
        ({"polyps/a": b"", "polyps/A": b""}, "is there twice"),
        ({"polyps/a/1": b"", "polyps/A/2": b""}, "is there twice"),
        ({"polyps/\u00e9": b"", "polyps/e\u0301": b""}, "is there twice"),
        ({"polyps/a": b"", "polyps/a/b": b""}, "is there twice, as a folder"),
        ({"polyps/a/b": b"", "polyps/a": b""}, "is there twice, as a folder"),
        ({"polyps/a": b"0" * 5000}, "more than is taken"),
        ({"polyps/a": b"", "other/b": b""}, "one folder at its top"),
        ({"a": b""}, "one folder at its top"),
    ],
)
def test_a_zip_that_is_no_bundle_writes_nothing(tmp_path: Path, entries: dict[str, bytes], sentence: str) -> None:
    path = write_zip(tmp_path / "x.zip", entries)
    (tmp_path / "to").mkdir()
    with pytest.raises(ValueError, match=sentence):
        unzip(path, tmp_path / "to", max_bytes=4000)
    assert not list((tmp_path / "to").iterdir())


@pytest.mark.parametrize("mode", [0o120777, 0o010644, 0o020644])
def test_links_pipes_and_devices_are_refused(tmp_path: Path, mode: int) -> None:
    path = write_zip(tmp_path / "x.zip", {"polyps/a": b"/etc/passwd"}, mode=mode)
    with pytest.raises(ValueError, match="is a link"):
        unzip(path, tmp_path)


def test_an_entry_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("polyps/a", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("polyps/a", b"2")
    with pytest.raises(ValueError, match="'polyps/a' is there twice"):
        unzip(tmp_path / "x.zip", tmp_path)


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_unfolds_without_a_bound_is_refused(tmp_path: Path, how: int) -> None:
    path = write_zip(tmp_path / "x.zip", {"polyps/a": b"0" * 5000}, how=how)
    with pytest.raises(ValueError, match="zip it again, by deflate"):
        unzip(path, tmp_path)


def test_an_encrypted_entry_is_named(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"polyps/a": b"1"})
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(mark) + place] |= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="'polyps/a' is encrypted"):
        unzip(path, tmp_path)


@pytest.mark.parametrize(
    ("told", "sentence"), [(2**45, "more than is taken"), (10, "is no whole zip"), (0, "is no whole")]
)
def test_a_zip_that_lies_about_a_size_unfolds_no_further(tmp_path: Path, told: int, sentence: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("polyps/a", b"0" * 10**6)
        archive.filelist[0].file_size = told  # of which the list at the end says so: 2**45 by the fields of zip64
    (tmp_path / "to").mkdir()
    with pytest.raises(ValueError, match=sentence):
        unzip(tmp_path / "x.zip", tmp_path / "to")
    assert sum(file.stat().st_size for file in (tmp_path / "to").rglob("*") if file.is_file()) <= 10


def test_a_list_that_points_before_the_file_is_no_whole_zip(tmp_path: Path) -> None:
    content = bytearray(zipped({"polyps/a": b"1"}))
    place = content.index(b"PK\5\6") + 16
    content[place] += 9  # where the list of the entries begins
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(ValueError, match="is no whole zip"):
        unzip(tmp_path / "x.zip", tmp_path)


@pytest.mark.parametrize("keep", [0.5, 0.97])
def test_a_truncated_zip_is_named(tmp_path: Path, keep: float) -> None:
    content = zipped({"polyps/a": bytes(range(256)) * 20, "polyps/b": b"2"})
    (tmp_path / "x.zip").write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match=r"x.zip: is no whole zip"):
        unzip(tmp_path / "x.zip", tmp_path)


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    content = bytearray(zipped({"polyps/a": bytes(range(256)) * 20}))
    content[60] ^= 0xFF
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(ValueError, match=r"x.zip: is "):
        unzip(tmp_path / "x.zip", tmp_path)
