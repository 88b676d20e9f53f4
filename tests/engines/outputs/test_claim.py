"""Tests of folders that a run has for itself."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ignite.engine import Engine, Events

from clinbundles.engines.folder_lock import lock_folder, unlock_folder
from clinbundles.engines.outputs.claim import check_apart, claim_folder, claim_run, is_free


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
    engine = Engine(lambda *_: None)
    dataset = SimpleNamespace(data=[{"image": str(image), "group": "Smith"}])
    for name, value in {"dataloader": SimpleNamespace(dataset=dataset), **state}.items():
        setattr(engine.state, name, value)
    return engine


RUN = """
import sys
from pathlib import Path
from test_claim import claim_run, engine_of
sys.stdin.readline()
claim_run(sys.argv[1], engine_of(Path(sys.argv[2])))
print("claimed", flush=True)
sys.stdin.read()
"""


def test_of_two_runs_that_start_at_the_same_instant_one_has_the_folder(tmp_path: Path) -> None:
    image, out = tmp_path / "a.png", tmp_path / "out"
    image.write_bytes(b"1")
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-c", RUN, str(out), str(image)]
    runs = [subprocess.Popen(command, cwd=Path(__file__).parent, text=True, **pipes) for _ in range(2)]
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("\n")
        run.stdin.flush()
    lines = [run.stdout.readline() for run in runs if run.stdout is not None]
    assert sorted(lines) == ["", "claimed\n"]
    with pytest.raises(ValueError, match="out: another run is writing to this folder; wait until it has ended"):
        claim_run(out, engine_of(image))
    errors = [run.communicate()[1] for run in runs]
    assert f"ValueError: {out}: another run is writing to this folder" in errors[lines.index("")]
    engine = engine_of(image)
    claim_run(out, engine)
    engine.fire_event(Events.COMPLETED)
    assert lock_folder(out, doing="run"), "the end of a run lets go of its folder"
    unlock_folder(out)


def test_a_folder_belongs_to_one_run_which_may_begin_again(tmp_path: Path) -> None:
    image, out = tmp_path / "Smith.png", tmp_path / "out"
    image.write_bytes(b"1")
    claim_run(out, engine_of(image, weights=("a",), run_options="1"))
    (out / "per_image.csv").write_text("image\na.png\n")
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


@pytest.mark.parametrize(
    ("table", "free"),
    [
        (None, True),
        ("image,failure\na.png,is no image\n", True),
        ("image,failure\na.png,is no image\nb.png,\n", False),
        ("image\na.png\n", False),
    ],
)
def test_a_folder_whose_run_could_use_nothing_is_another_run_s(tmp_path: Path, table: str | None, free: bool) -> None:
    image, out = tmp_path / "a.png", tmp_path / "out"
    assert not is_free(out)
    first = engine_of(image, run_options="1")
    claim_run(out, first)
    if table is not None:
        (out / "per_image.csv").write_text(table)
        (out / "metrics.json").write_text("{}")
    first.fire_event(Events.COMPLETED)
    assert is_free(out) == free
    if free:
        (out / "validation").mkdir()
        (out / "validation" / "per_image.csv").write_text("image,failure\na.png,\n")
        assert not is_free(out), "the validation of an evaluation is a result"
        (out / "validation" / "per_image.csv").unlink()
        (out / "validation").rmdir()
        claim_run(out, engine_of(image, run_options="2"))
        assert [file.name for file in out.iterdir()] == [".run.json"]
        assert json.loads((out / ".run.json").read_text())["options"] == "2"
    else:
        with pytest.raises(ValueError, match="out holds a run of other options"):
            claim_run(out, engine_of(image, run_options="2"))
        assert (out / "per_image.csv").read_text() == table


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
