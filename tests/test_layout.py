"""The rules of the house that no other tool checks."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# demo.py is the README's first command and the benchmarks only print; all are run by `make`.
UNTESTED_SCRIPTS = (
    "scripts/demo.py",
    "scripts/bench/blur.py",
    "scripts/bench/classifier.py",
    "scripts/bench/two_stage.py",
)
PACKAGES = ("transforms", "nets", "engines")
# What each wing may import, itself included. A bundle runs the first three, a person the last.
MAY_IMPORT = {
    "transforms": {"transforms"},
    "nets": {"nets"},
    "engines": {"engines", "transforms", "nets"},
    "scripts": {"scripts", "engines", "transforms", "nets"},
}
MODULES = sorted(path for wing in MAY_IMPORT for path in (ROOT / wing).rglob("*.py"))
ROOMS = sorted(p for wing in MAY_IMPORT for p in (ROOT / wing).iterdir() if p.is_dir() and p.name != "__pycache__")


def name_of(path: Path) -> str:
    """A file's path from the root."""
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> list[tuple[int, str]]:
    """(level, module) of every import in a file; level 1 is relative."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or ""))
    return found


def test_mlflow_and_scripts_shadow_no_real_package() -> None:
    assert not (ROOT / "mlflow" / "__init__.py").exists()
    assert not (ROOT / "scripts" / "__init__.py").exists()
    assert not list((ROOT / "mlflow").glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_libraries_its_own_wing_and_those_below(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[:-1]
    for level, module in imports(path):
        assert level <= len(folder) + 1, f"{module}: out of the package"
        parts = [*folder[: len(folder) + 1 - level], *module.split(".")] if level else module.split(".")
        if not level and parts[0] == "clinbundles":
            assert folder[0] == "scripts", f"{module}: what a bundle runs imports its own by relative names"
            parts = parts[1:]
        elif not level:
            assert parts[0] not in ("bundles", "tests", *MAY_IMPORT), module
            continue
        assert parts[0] in MAY_IMPORT[folder[0]], module


def test_rooms_are_one_level_deep_and_an_init_is_one_docstring() -> None:
    assert ROOMS
    for folder in [*(ROOT / package for package in PACKAGES), *ROOMS]:
        if folder in ROOMS:
            assert not [p for p in folder.iterdir() if p.is_dir() and p.name != "__pycache__"], folder
        body = ast.parse((folder / "__init__.py").read_text()).body
        assert len(body) == 1, folder
        assert isinstance(body[0], ast.Expr), folder


def test_every_module_has_its_mirrored_test() -> None:
    missing = []
    for path in MODULES:
        if path.name == "__init__.py" or name_of(path) in UNTESTED_SCRIPTS:
            continue
        # blur_numba.py may be tested together with blur.py, whose kernel it is.
        names = {path.stem, path.stem.partition("_")[0]}
        folder = ROOT / "tests" / path.parent.relative_to(ROOT)
        if not any((folder / f"test_{name}.py").is_file() for name in names):
            missing.append(name_of(path))
    assert not missing


def test_the_package_mapping_names_every_folder() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["package-dir"] == {f"clinbundles.{wing}": wing for wing in MAY_IMPORT}
    folders = [*MAY_IMPORT, *(name_of(room).replace("/", ".") for room in ROOMS)]
    assert sorted(settings["packages"]) == sorted(f"clinbundles.{folder}" for folder in folders)


def test_constraints_are_names_and_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert len(lines) > 50
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in lines)


def test_no_file_in_the_repository_is_large() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    assert files
    too_large = [f.name for f in files if f.is_file() and f.stat().st_size > 30e6]
    assert not too_large
