"""Tests of folders that a run has for itself."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clinbundles.engines.outputs.claim import check_apart, claim_folder, claim_run


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


def engine_of(image: Path, **state: Any) -> Any:
    dataset = SimpleNamespace(data=[{"image": str(image), "group": "Smith"}])
    return SimpleNamespace(state=SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset), **state))


def test_a_folder_belongs_to_one_run_which_may_begin_again(tmp_path: Path) -> None:
    image, out = tmp_path / "Smith.png", tmp_path / "out"
    image.write_bytes(b"1")
    claim_run(out, engine_of(image, weights=("a",), run_options="1"))
    claim_run(out, engine_of(image, weights=("a",), run_options="1"))
    claim_run(out, engine_of(image, weights=("a",)))  # a host knows of no options
    before = (out / ".run.json").read_text()
    assert "Smith" not in before
    assert json.loads(before)["options"] == "1"
    for name, weights, options in (("weights", "b", "1"), ("options", "a", "2")):
        with pytest.raises(ValueError, match=rf"out holds a run of other {name}: choose another --output_dir"):
            claim_run(out, engine_of(image, weights=(weights,), run_options=options))
    os.utime(image, (1, 1))
    with pytest.raises(ValueError, match=r"out holds a run of other images: choose another --output_dir"):
        claim_run(out, engine_of(image, weights=("a",), run_options="1"))
    assert (out / ".run.json").read_text() == before


@pytest.mark.parametrize("name", ["per_image.csv", "masks/a.png"])
def test_files_of_nobody_knows_which_run_are_kept(tmp_path: Path, name: str) -> None:
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(ValueError, match=rf"has files of another run, such as {file.name}: choose another"):
        claim_run(tmp_path / "out", engine_of(tmp_path / "a.png"))
    assert not (tmp_path / "out" / ".run.json").exists()


def test_a_mark_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".run.json").write_text("[")
    with pytest.raises(ValueError, match=r"\.run\.json: is no mark of a run"):
        claim_run(tmp_path / "out", engine_of(tmp_path / "a.png"))
    with pytest.raises(ValueError, match="the images of this run lie here"):
        claim_run(tmp_path, engine_of(tmp_path / "a.png"))
