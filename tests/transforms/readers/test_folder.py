from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clinbundles.transforms.readers.folder import find_images, image_stem, image_suffix, list_images, rest_below


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.jpg"):
        Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.png").write_text("x")
    (tmp_path / "scan").write_bytes(b"\0" * 128 + b"DICM")
    return tmp_path


def test_images_and_dicom_files_are_listed_by_name_and_nothing_else(folder: Path) -> None:
    assert [Path(item["image"]).name for item in list_images(str(folder))] == ["a.jpg", "b.png", "scan"]


def test_a_missing_or_empty_folder_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent is not a folder"):
        list_images(str(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty holds no image"):
        list_images(str(tmp_path / "empty"))


def test_a_folder_whose_images_lie_deeper_tells_how_many_and_where(tmp_path: Path) -> None:
    for name in ("a/b/1.nii.gz", "c/2.png", "c/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(
        FileNotFoundError, match=r"\.nii\.gz or DICOM\) itself, but 2 lie deeper, such as a/b/1\.nii\.gz: "
    ):
        list_images(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "stem", "suffix"),
    [
        ("im0001.ppm.gz", "im0001", ".ppm.gz"),
        ("im0001.ah.PPM.GZ", "im0001.ah", ".ppm.gz"),
        ("scan.nii.gz", "scan", ".nii.gz"),
        ("scan.nii", "scan", ".nii"),
        ("/data/a.b.JPG", "a.b", ".jpg"),
        ("scan", "scan", ""),
        (".hidden", ".hidden", ""),
    ],
)
def test_outputs_are_named_without_single_and_double_suffixes(name: str, stem: str, suffix: str) -> None:
    assert (image_stem(name), image_suffix(name)) == (stem, suffix)


def test_compressed_images_and_nifti_are_listed_also_where_two_share_a_stem(tmp_path: Path) -> None:
    names = ["a.ppm.gz", "b.nii.gz", "c.nii", "d.gif", "e.tar.gz", "f.csv.gz"]
    for name in names:
        (tmp_path / name).touch()
    assert [Path(item["image"]).name for item in list_images(str(tmp_path))] == names[:4]
    (tmp_path / "a.png").touch()
    assert [Path(item["image"]).name for item in list_images(str(tmp_path))] == ["a.png", *names[:4]]


def test_images_of_the_folders_below_are_found_in_the_order_of_their_paths(folder: Path) -> None:
    (folder / "b").mkdir()
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(folder / "b" / "a.png")
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(folder / "b" / "b.png")
    (folder / "b" / "CR.DCM").touch()  # without the prefix: to be refused when it is read, and not overlooked
    (folder / "b" / "._CR.dcm").touch()
    (folder / "b" / "notes.txt").touch()
    (folder / "folder.dcm").mkdir()
    names = [Path(item["image"]).relative_to(folder).as_posix() for item in find_images(str(folder))]
    assert names == ["a.jpg", "b/CR.DCM", "b/a.png", "b/b.png", "b.png", "scan"]


def test_a_folder_to_search_must_be_there_and_hold_an_image(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent is not a folder"):
        find_images(str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError, match=r"a\.jpg is not a folder"):
        find_images(str(folder / "a.jpg"))
    (tmp_path / "empty" / "emptier").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="empty holds no image"):
        find_images(str(tmp_path / "empty"))


def test_images_are_known_by_what_they_begin_with(tmp_path: Path) -> None:
    picture = Image.fromarray(np.zeros((4, 4, 3), np.uint8))
    for name, kind in {"a.jfif": "JPEG", "b.webp": "WEBP", "c": "PNG", "d.TIF": "TIFF", "e.svs": "TIFF"}.items():
        picture.save(tmp_path / name, kind)
    for name, content in {"f.txt": b"no image", "g": b"", "h.json": b"{}", "i.png": b"broken, and so named"}.items():
        (tmp_path / name).write_bytes(content)
    names = [Path(item["image"]).name for item in list_images(str(tmp_path))]
    assert names == ["a.jfif", "b.webp", "c", "d.TIF", "e.svs", "i.png"]


def test_a_uid_is_a_whole_name() -> None:
    assert [image_stem(f"1.2.840.113.{k}") for k in (1, 2)] == ["1.2.840.113.1", "1.2.840.113.2"]
    assert (image_suffix("1.2.840.113"), image_suffix("a.1.PNG")) == ("", ".png")


def test_linked_folders_are_read_and_a_link_to_above_ends(tmp_path: Path) -> None:
    picture = Image.fromarray(np.zeros((4, 4, 3), np.uint8))
    for folder in ("inbox/today", "archive", "inbox/.hidden"):
        (tmp_path / folder).mkdir(parents=True)
        picture.save(tmp_path / folder / "x.png")
    (tmp_path / "inbox" / "older").symlink_to(tmp_path / "archive")
    (tmp_path / "inbox" / "today" / "round").symlink_to(tmp_path / "inbox")
    paths = [Path(item["image"]).relative_to(tmp_path) for item in find_images(str(tmp_path / "inbox"))]
    assert paths == [Path("inbox/older/x.png"), Path("inbox/today/x.png")]


def test_images_that_lie_deeper_than_those_listed_are_counted(tmp_path: Path) -> None:
    for name in ("1.png", "a/2.png", "a/b/3.png", "a/b/4.png", "a/notes.txt", ".hidden/5.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    folder = str(tmp_path)
    assert rest_below(folder, list_images(folder)) == "3 images in 2 subfolders are not looked at"
    series = {"image": str(tmp_path / "a" / "b")}  # a folder that is one image
    assert rest_below(folder, [*list_images(folder), series]) == "1 images in 1 subfolders are not looked at"
    assert rest_below(folder, find_images(folder)) == ""
