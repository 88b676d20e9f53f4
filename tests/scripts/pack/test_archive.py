import io
import zipfile

from clinbundles.scripts.pack.archive import zipped


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
