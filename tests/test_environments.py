"""Environments that pyproject.toml offers: each resolves with its constraints, which hold names and versions only."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
FILES = [*ROOT.glob("constraints*.txt"), *ROOT.glob("scripts/*/constraints*.txt")]
CONSTRAINTS = {path.stem.removeprefix("constraints").removeprefix("-"): path for path in FILES}
# All extras without a constraints file of their own share one environment.
TOGETHER = [extra for extra in EXTRAS if extra not in CONSTRAINTS]
# Pins are exact, so that extras that resolve alone resolve together; newer Pythons are asked once.
ENVIRONMENTS = [*(([extra], "3.11") for extra in EXTRAS), (TOGETHER, "3.12"), (TOGETHER, "3.13")]


def pins(path: Path) -> dict[str, str]:
    """Versions by canonical name, as a constraints file says them."""
    lines = (line.split("==") for line in path.read_text().splitlines())
    return {canonicalize_name(name): version for name, version in lines}


def test_there_are_extras_and_constraints_and_those_apart_are_extras() -> None:
    assert {"cluster", "deploy", "dev", "onnx"} <= set(TOGETHER)
    assert {"", "label"} <= set(CONSTRAINTS) <= {"", *EXTRAS}


@pytest.mark.parametrize("path", CONSTRAINTS.values(), ids=lambda path: path.stem)
def test_constraints_are_names_and_versions_in_order(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9][a-z0-9-]*==[0-9][0-9a-z.+]*", line)] == []
    assert list(pins(path)) == sorted(pins(path))
    assert len(pins(path)) == len(lines)


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraints_meet_what_the_project_requires(name: str) -> None:
    versions = pins(CONSTRAINTS[name])
    extras = [name] if name else TOGETHER
    requirements = [Requirement(text) for text in PROJECT["dependencies"] + [r for e in extras for r in EXTRAS[e]]]
    wrong = [str(r) for r in requirements if versions.get(canonicalize_name(r.name), "0") not in r.specifier]
    assert wrong == []


@pytest.mark.parametrize(("extras", "python"), ENVIRONMENTS, ids="+".join)
def test_extras_resolve_and_every_package_that_they_bring_is_pinned(
    extras: list[str], python: str, uv: Callable[..., str]
) -> None:
    constraints = CONSTRAINTS[extras[0] if extras[0] in CONSTRAINTS else ""]
    flags = [*(f"--extra={extra}" for extra in extras), f"--python-version={python}", f"--constraints={constraints}"]
    lines = uv(
        "pip", "compile", "--no-header", "--no-annotate", "--quiet", *flags, str(ROOT / "pyproject.toml")
    ).split()
    assert len(lines) > len(PROJECT["dependencies"])
    assert set(lines) <= {f"{name}=={version}" for name, version in pins(constraints).items()}
