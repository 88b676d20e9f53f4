"""Tests of the studies that are found in folders and lists."""

import os
from pathlib import Path

import pytest

from clinbundles.scripts.predict.inputs import check_apart, find_paths


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder of files, some with names that lists stumble on."""
    for name in ("in/a.png", "in/.hidden", "in/b/c.png", "Doe, Jane/a,b.png", "Doe/a.png", "a\u2028b\x85.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def found(home: Path, name: str, content: str | bytes) -> list[str]:
    """Give what a list of some content names, from its folder."""
    (home / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return [path.relative_to(home).as_posix() for path in find_paths(str(home / name))]


def test_a_folder_has_a_study_in_each_file_and_folder_and_an_image_is_one(home: Path) -> None:
    assert find_paths(f"{home / 'in'},{home / 'Doe' / 'a.png'}") == [
        home / "in" / "a.png",
        home / "in" / "b",
        home / "Doe" / "a.png",
    ]
    assert find_paths(str(home / "Doe, Jane")) == [home / "Doe, Jane" / "a,b.png"]
    (home / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: holds no study"):
        find_paths(str(home / "empty"))
    with pytest.raises(FileNotFoundError, match="absent: no such folder, image or list of paths"):
        find_paths(str(home / "absent"))


def test_all_spellings_of_a_path_are_one_study(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (home / "link").symlink_to(home / "in")
    lines = f"in/a.png\nin/../in/./a.png\nlink/a.png\n{home}/in/a.png\n"
    assert found(home, "l.txt", lines) == ["in/a.png"]
    assert "4 paths of 1 studies" in capsys.readouterr().out
    monkeypatch.chdir(home / "in")
    assert find_paths("a.png") == [home / "in" / "a.png"]


def test_a_line_of_text_is_a_path_and_nothing_else(home: Path, capsys: pytest.CaptureFixture) -> None:
    lines = ["in/a.png", "", "Doe, Jane/a,b.png", "Doe, second visit.png", "a\u2028b\x85.png", '"in/b"']
    assert found(home, "l.txt", "\r\n".join(lines)) == [line for line in lines if line]
    assert "l.txt: 5 paths, 2 with nothing there: see line 4, 6." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("path,label\nin/a.png,1\n", ["in/a.png"]),
        ("label, Image\n1, in/a.png\n\n2,in/b\n", ["in/a.png", "in/b"]),
        ("in/a.png,1\nin/b,2\n", ["in/a.png", "in/b"]),
        ('"Doe, Jane/a,b.png",1\nDoe,2\n', ["Doe, Jane/a,b.png", "Doe"]),
        ('"in/with\nnewline.png",1\n', ["in/with\nnewline.png"]),
    ],
)
def test_a_table_has_paths_in_the_column_of_that_name_or_in_the_first(home: Path, text: str, paths: list[str]) -> None:
    assert found(home, "l.csv", text) == paths
    assert found(home, "l.csv", text.encode("utf-16")) == paths
    assert found(home, "l.csv", text.encode("utf-8-sig")) == paths


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.txt", "in/\xe9.png\n".encode("latin-1"), r"l\.txt: is no text in UTF-8 or UTF-16 .*: save it as UTF-8"),
        ("l.txt", b"in/a.png\nin/\0.png\n", r"l\.txt, line 2: has a zero byte, which no path has"),
        ("l.csv", '"' + "x" * 200_000 + '"\n', r"l\.csv, line 1: is no CSV \(field larger than field limit"),
        ("l.csv", '"in/a.png\nin/b\n', r"l\.csv, line 2: is no CSV \(unexpected end of data"),
        ("l.csv", "in/a.png\nDoe, Jane/a,b.png\n", r"l\.csv, line 2: 3 columns, not 1: a path with commas stands in"),
        ("l.csv", "Doe, Jane\n", r"l\.csv, line 1: 'Doe, Jane' is a path with commas: put it in double quotes"),
        ("l.csv", "image,label\n,1\n", r"l\.csv, line 2: no path in column 1"),
        ("l.csv", "in,path\n", r"holds no study"),
        ("l.txt", "in/a.png\n.\n", r"l\.txt, line 2: .* is no study: its name is empty|which holds .* itself"),
        ("l.txt", "in/..\n", r"l\.txt, line 1: .*in/\.\.' is no study: its name is empty or begins with a dot"),
        ("l.txt", "../\n", r"l\.txt, line 1: .* is no study"),
        ("l.txt", "/\n", r"l\.txt, line 1: '/' is no study: its name is empty"),
        ("l.txt", "in/.hidden\n", r"l\.txt, line 1: .*hidden' is no study"),
        ("l.txt", "up\n", r"l\.txt, line 1: .*up' is no study: it is .*, which holds .* itself"),
    ],
)
def test_what_is_wrong_with_a_list_is_said_with_its_line(
    home: Path, name: str, content: str | bytes, message: str
) -> None:
    (home / "up").symlink_to(home)
    with pytest.raises(ValueError, match=message):
        found(home, name, content)


def test_a_header_that_is_a_folder_too_is_refused(home: Path) -> None:
    (home / "image").mkdir()
    with pytest.raises(ValueError, match=r"line 1: 'image' may be a header or a study: call the column path or"):
        found(home, "l.csv", "image,label\nin/a.png,1\n")


def test_an_output_lies_neither_in_its_inputs_nor_around_them(home: Path) -> None:
    inputs = str(home / "in")
    paths = find_paths(inputs)
    for output in (home / "in", home / "in" / "out", home / "in" / "b" / "out"):
        with pytest.raises(ValueError, match=r"is, or lies in, .*in, of which it would be made"):
            check_apart(output, inputs, paths)
    with pytest.raises(ValueError, match=r"in/a\.png: lies in the output"):
        check_apart(home, inputs, paths)
    check_apart(home / "out", inputs, paths)
    os.symlink(home / "in", home / "link")
    with pytest.raises(ValueError, match="is, or lies in,"):
        check_apart(home / "link" / "out", inputs, paths)
