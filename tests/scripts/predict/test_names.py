"""Tests of the names of studies."""

from pathlib import Path

import pytest

from clinbundles.scripts.predict.hashes import source_of
from clinbundles.scripts.predict.names import claim_names, name_studies
from clinbundles.scripts.predict.studies import DONE, Status, Study, read_statuses, write_status


def names_of(studies: list[Study]) -> list[str]:
    return [study.name for study in studies]


def test_a_study_keeps_the_name_that_its_status_records(tmp_path: Path) -> None:
    first, second = tmp_path / "p1" / "a.png", tmp_path / "p2" / "a.png"
    assert names_of(claim_names(tmp_path / "status", [first])) == ["a"]
    assert names_of(claim_names(tmp_path / "status", [second, first])) == ["p2_a", "a"]
    assert names_of(claim_names(tmp_path / "status", [second])) == ["p2_a"]
    statuses = read_statuses(tmp_path / "status")
    assert [(status.study, status.path) for status in statuses] == [("a", str(first)), ("p2_a", str(second))]
    assert names_of(name_studies([first, second], [])) == ["p1_a", "p2_a"]


def test_a_study_that_is_done_and_was_moved_keeps_its_name(tmp_path: Path) -> None:
    for folder, text in (("old", "1"), ("new", "1"), ("other", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_text(text)
    old, new, other = (tmp_path / folder / "a.png" for folder in ("old", "new", "other"))
    write_status(tmp_path / "status", Status("a", DONE, source_sha256=source_of(Study("a", old)), path=str(old)))
    assert names_of(name_studies([new], read_statuses(tmp_path / "status"))) == ["new_a"]
    old.unlink()
    assert names_of(claim_names(tmp_path / "status", [new, other])) == ["a", "other_a"]
    assert {status.study: (status.status, status.path) for status in read_statuses(tmp_path / "status")} == {
        "a": (DONE, str(new)),
        "other_a": ("waiting", str(other)),
    }


def test_a_name_that_no_file_can_have_is_cut_and_one_that_is_hidden_is_refused() -> None:
    long, like = Path("/in", "é" * 126), Path("/in", "é" * 125 + "e")
    names = names_of(name_studies([long, like], []))
    assert len(set(names)) == 2
    assert all(name.startswith("é" * 40) and len(name) == 53 for name in names)
    with pytest.raises(ValueError, match=r"its outputs would be called '\.x_a'"):
        name_studies([Path("/.x/a.png"), Path("/y/a.png")], [])
