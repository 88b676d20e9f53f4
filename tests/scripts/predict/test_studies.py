"""Tests of studies and of what became of them."""

from pathlib import Path

import pytest

from clinbundles.scripts.predict.studies import (
    CHANGED,
    DONE,
    FAILED,
    SINCE,
    WAITING,
    Status,
    Study,
    as_folder,
    compare_source,
    read_status,
    read_statuses,
    sizes_of,
    write_status,
    write_table,
)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "/", "a\0"])
def test_a_study_has_the_name_of_a_folder_of_its_own(name: str) -> None:
    with pytest.raises(ValueError, match=r"^in/a\.png: its outputs would be called .*, which is no name of a folder"):
        Study(name, Path("in/a.png"))
    Study("$a..b ::", Path("in/a.png"))


def test_a_status_is_read_as_it_was_written_and_a_torn_one_is_waiting(tmp_path: Path) -> None:
    status = Status("a", DONE, images=2, seconds=1.5, path="/in/a.png", files={"masks/a.png": 3})
    write_status(tmp_path / "status", status)
    assert read_status(tmp_path / "status", "a") == status
    (tmp_path / "status" / "b.json").write_text('{"study": "b", "sta')
    assert read_status(tmp_path / "status", "b") == read_status(tmp_path, "b") == Status("b", WAITING)
    assert read_statuses(tmp_path / "status") == [status, Status("b")]


def test_no_field_of_the_table_is_a_formula_for_a_spreadsheet(tmp_path: Path) -> None:
    write_table(tmp_path / "status.csv", [Status("a", DONE, 2, path="/a", files={"a": 1}), Status("=b", sentence="+1")])
    assert (tmp_path / "status.csv").read_text().splitlines() == [
        "study,status,images,left_out,warned,seconds,sentence,source_sha256,settings_sha256,path",
        "a,done,2,0,,0.0,,,,/a",
        "./=b,waiting,0,0,,0.0,./+1,,,",
    ]


def test_sizes_are_of_the_files_below_a_folder(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.png").write_text("123")
    (tmp_path / "gone").symlink_to(tmp_path / "absent")
    assert sizes_of(tmp_path) == {"masks/a.png": 3}
    assert sizes_of(tmp_path / "absent") == {}


def test_a_single_file_has_a_folder_as_long_as_it_is_needed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("pixels")
    with as_folder(Study("a", tmp_path / "a.png"), tmp_path / "work" / "in") as folder:
        assert [path.read_text() for path in folder.iterdir()] == ["pixels"]
    assert not folder.exists()
    with as_folder(Study("x", tmp_path), tmp_path / "work" / "in") as folder:
        assert folder == tmp_path
    with pytest.raises(FileNotFoundError), as_folder(Study("b", tmp_path / "b.png"), tmp_path / "work" / "in"):
        pass
    (tmp_path / "fo::ld").mkdir()
    (tmp_path / "fo::ld" / "a.png").write_text("pixels")
    with as_folder(Study("fo", tmp_path / "fo::ld"), tmp_path / "work" / "in") as folder:
        assert "::" not in str(folder)
        assert (folder / "a.png").read_text() == "pixels"


def test_a_sentence_of_several_lines_is_one_in_the_table(tmp_path: Path) -> None:
    write_table(tmp_path / "status.csv", [Status("a", FAILED, sentence="Failed to evaluate: \n  $run()")])
    assert "Failed to evaluate: $run()" in (tmp_path / "status.csv").read_text().splitlines()[1]


def test_what_changes_keeps_its_own_sentence_for_when_it_is_again_what_it_was() -> None:
    done = Status("a", DONE, sentence="2 images were left out.", source_sha256="1")
    changed = compare_source(done, "2")
    assert (changed.status, changed.sentence) == (CHANGED, f"{SINCE[0]} 2 images were left out.")
    assert compare_source(compare_source(changed, ""), "2") == changed
    assert compare_source(changed, "1") == done
    failed = Status("a", FAILED, source_sha256="1")
    assert compare_source(failed, "2") == failed
