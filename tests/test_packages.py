"""What is handed on: a wheel with the code and its command, and a source distribution with all that git tracks."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
# Things that runs and builds leave beside tracked files.
LEFT_BEHIND = (
    "bundles/x/eval/a.png",
    "bundles/x/runs/a.csv",
    "transforms/__pycache__/a.cpython-311.pyc",
    "mlflow/runs.db",
    "nets/.a.part",
)


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout of git")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listing.split("\0") if name and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def built(tracked: set[str], uv: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a source distribution of the tracked files, and the wheel that was built from it."""
    copy, output = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for name in tracked:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    for name in LEFT_BEHIND:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("")
    uv("build", "--quiet", "--out-dir", str(output), str(copy))
    return output


def test_the_source_distribution_is_what_git_tracks(built: Path, tracked: set[str]) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    made = {name for name in names if name in ("PKG-INFO", "setup.cfg") or name.startswith("clinbundles.egg-info/")}
    assert names - made == tracked


def test_the_wheel_holds_the_code_and_nothing_else(built: Path, tracked: set[str]) -> None:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        entry_points = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    # With the code go a page's template, the versions of MONAI Label's packages, and the settings for MLflow.
    modules = {
        f"clinbundles/{name}"
        for name in tracked
        if name.startswith("mlflow/")
        or (name.endswith((".py", ".jinja", ".txt")) and name.split("/")[0] in WINGS.values())
    }
    assert len(modules) > 50
    assert {name for name in names if ".dist-info/" not in name} == modules
    assert "clinbundles = clinbundles.scripts.cli:main" in entry_points


# Prints the files beside the code that commands read: --tracking without a value, and label start.
READER = """
from clinbundles.scripts.bundle import tracking_file
from clinbundles.scripts.label.environment import CONSTRAINTS
print(tracking_file(), CONSTRAINTS, CONSTRAINTS.is_file())
"""


def test_commands_of_an_installed_wheel_find_the_files_that_they_read(built: Path, tmp_path: Path) -> None:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "site")
    command = [sys.executable, "-c", READER]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    site = tmp_path / "site" / "clinbundles"
    files = [site / "mlflow" / "tracking.json", site / "scripts" / "label" / "constraints-label.txt"]
    assert done.stdout.split() == [*map(str, files), "True"]
