"""The rules of the house that no other tool checks."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# demo.py is the README's first command and the benchmarks only print; all are run by `make`.
UNTESTED_SCRIPTS = ("demo", "bench_blur", "bench_classifier", "bench_two_stage")
PACKAGES = ("transforms", "nets", "engines")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).glob("*.py"))


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


@pytest.mark.parametrize("path", MODULES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_module_imports_only_libraries_and_its_neighbours(path: Path) -> None:
    for level, module in imports(path):
        assert level <= 1, f"{module}: two levels up"
        if level == 0:
            assert module.partition(".")[0] not in ("clinbundles", "bundles", "scripts", "tests", *PACKAGES), module


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_flat_and_their_init_is_one_docstring(package: str) -> None:
    assert not [p for p in (ROOT / package).iterdir() if p.is_dir() and p.name != "__pycache__"]
    body = ast.parse((ROOT / package / "__init__.py").read_text()).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)


def test_every_module_has_its_mirrored_test() -> None:
    scripts = [p for p in (ROOT / "scripts").glob("*.py") if p.stem not in UNTESTED_SCRIPTS]
    modules = [p for p in MODULES if p.name != "__init__.py"] + scripts
    missing = []
    for path in modules:
        # blur_numba.py may be tested together with blur.py, whose kernel it is.
        names = {path.stem, path.stem.partition("_")[0]}
        if not any((ROOT / "tests" / path.parent.name / f"test_{name}.py").is_file() for name in names):
            missing.append(path.name)
    assert not missing


def test_the_package_mapping_names_every_folder() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["package-dir"] == {f"clinbundles.{p}": p for p in PACKAGES}
    assert sorted(settings["packages"]) == sorted(settings["package-dir"])


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
