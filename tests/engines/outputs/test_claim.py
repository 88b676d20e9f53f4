"""Tests of folders that a run has for itself."""

from pathlib import Path

import pytest

from clinbundles.engines.outputs.claim import check_apart, claim_folder


def test_a_folder_is_made_and_a_run_may_begin_again(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "masks"
    claim_folder(folder, ["a.png", "b.png"])
    (folder / "a.png").touch()
    (folder / "A.PNG").touch()
    (folder / ".b.0123abcd.part").touch()
    (folder / ".keep").touch()
    claim_folder(folder, ["a.png", "b.png"])
    assert {file.name for file in folder.iterdir()} >= {"a.png", ".keep"}
    assert not (folder / ".b.0123abcd.part").exists()


def test_files_of_another_run_are_named_and_nothing_is_changed(tmp_path: Path) -> None:
    for name in ("c.png", ".b.0123abcd.part"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"has files of another run, such as c\.png: choose another --output_dir"):
        claim_folder(tmp_path, ["a.png"])
    assert (tmp_path / ".b.0123abcd.part").exists()


@pytest.mark.parametrize("place", ["frames", "frames/images/today"])
def test_the_images_of_the_run_are_not_among_its_outputs(tmp_path: Path, place: str) -> None:
    image = tmp_path / place / "a.png"
    with pytest.raises(ValueError, match=r"frames: the images of this run lie here \(a\.png\)"):
        check_apart(tmp_path / "frames", [tmp_path / "b.png", image])
    check_apart(tmp_path / "frames" / "out", [image])
