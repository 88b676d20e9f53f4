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


def write_zip(path: Path, entries: dict[str, bytes], *, link: bool = False) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o120777 if link else 0o100644) << 16
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
        ({"polyps/a": b"", "polyps/A": b""}, "is there twice"),
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


def test_links_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"polyps/a": b"/etc/passwd"}, link=True)
    with pytest.raises(ValueError, match="is a link"):
        unzip(path, tmp_path)


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
