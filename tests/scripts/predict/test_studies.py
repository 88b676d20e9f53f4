"""Tests of studies and of what became of them."""

from pathlib import Path

import pytest

from clinbundles.scripts.predict.studies import (
    DONE,
    WAITING,
    Status,
    Study,
    as_folder,
    find_studies,
    read_status,
    write_status,
    write_table,
)


def test_files_folders_and_lines_of_a_list_are_studies_with_names_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "in" / "b").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    for name in ("in/a.png", "in/.hidden", "other/a.png"):
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("other/a.png\n\n")
    studies = find_studies(f"{tmp_path / 'in'},{tmp_path / 'list.txt'}")
    assert [(study.name, study.path) for study in studies] == [
        ("in_a", tmp_path / "in" / "a.png"),
        ("b", tmp_path / "in" / "b"),
        ("other_a", tmp_path / "other" / "a.png"),
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no study"):
        find_studies(str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match="absent: no such folder, image or list of paths"):
        find_studies(str(tmp_path / "absent"))


def test_a_path_with_a_comma_that_is_there_is_one_path(tmp_path: Path) -> None:
    (tmp_path / "Doe, Jane").mkdir()
    (tmp_path / "Doe, Jane" / "a,b.png").touch()
    (tmp_path / "list.txt").write_text('Doe, Jane/a,b.png\nDoe, Jane,1\n"Doe, Jane",2\n')
    assert [study.path.name for study in find_studies(str(tmp_path / "Doe, Jane"))] == ["a,b.png"]
    (tmp_path / "Doe").mkdir()
    paths = [study.path for study in find_studies(str(tmp_path / "list.txt"))]
    assert paths == [tmp_path / "Doe, Jane" / "a,b.png", tmp_path / "Doe", tmp_path / "Doe, Jane"]


def test_a_status_is_read_as_it_was_written_and_a_torn_one_is_waiting(tmp_path: Path) -> None:
    status = Status("a", DONE, images=2, seconds=1.5)
    write_status(tmp_path / "status", status)
    assert read_status(tmp_path / "status", "a") == status
    (tmp_path / "status" / "b.json").write_text('{"study": "b", "sta')
    assert read_status(tmp_path / "status", "b") == read_status(tmp_path, "b") == Status("b", WAITING)
    counts = write_table(tmp_path / "status.csv", [status, Status("b")])
    assert counts == {DONE: 1, WAITING: 1}
    assert (tmp_path / "status.csv").read_text().splitlines()[1:] == ["a,done,2,0,1.5,,,", "b,waiting,0,0,0.0,,,"]


def test_a_single_file_has_a_folder_as_long_as_it_is_needed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("pixels")
    with as_folder(Study("a", tmp_path / "a.png"), tmp_path / "work" / "in") as folder:
        assert [path.read_text() for path in folder.iterdir()] == ["pixels"]
    assert not folder.exists()
    with as_folder(Study("x", tmp_path), tmp_path / "work" / "in") as folder:
        assert folder == tmp_path
    with pytest.raises(FileNotFoundError), as_folder(Study("b", tmp_path / "b.png"), tmp_path / "work" / "in"):
        pass
