"""The environment of MONAI Label: its name, its requirements, and what hinders it."""

import os
from pathlib import Path

import pytest

from clinbundles.scripts.label import environment
from clinbundles.scripts.label.environment import CONSTRAINTS, key_of, label_python, requirements


def test_its_packages_are_those_of_the_bundles_and_of_the_extra() -> None:
    names = {line.partition("=")[0].partition("<")[0].partition(">")[0] for line in requirements()}
    assert {"monai", "torch", "monailabel", "dicomweb-client"} <= names
    assert not names & {"submitit", "monai-deploy-app-sdk", "pytest"}
    assert "pydicom==2.4.5" in requirements()


def test_other_constraints_or_packages_are_another_environment() -> None:
    key = key_of(CONSTRAINTS.read_bytes(), requirements())
    assert key == key_of(CONSTRAINTS.read_bytes(), requirements())
    assert len({key, key_of(b"", requirements()), key_of(CONSTRAINTS.read_bytes(), [])}) == 3


def test_one_that_is_there_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / f"label-{key_of(CONSTRAINTS.read_bytes(), requirements())}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    python.parent.mkdir(parents=True)
    python.touch()
    assert label_python(cache_dir=str(tmp_path)) == python


def test_versions_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.txt: no such file"):
        label_python(constraints=str(tmp_path / "nothing.txt"), cache_dir=str(tmp_path))


def test_a_failed_installation_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "requirements", lambda: ["./no-such-package"])
    with pytest.raises(ValueError, match=r"the environment of MONAI Label cannot be made \(uv: .*no-such-package"):
        label_python(cache_dir=str(tmp_path / "cache"))
    assert not list((tmp_path / "cache").iterdir())
