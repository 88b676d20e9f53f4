"""The environment that MONAI Label needs: NumPy 1 and pydicom 2, beside the one in which this command runs."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from clinbundles.engines.folder_lock import lock_folder, unlock_folder
from clinbundles.engines.outputs.files import replacing

CONSTRAINTS = Path(__file__).with_name("constraints-label.txt")
PYTHON = "3.11"  # NumPy 1.26 has no wheel for 3.13, and SciPy none for 3.10


def make_environment(*, constraints: str | None = None, cache_dir: str | None = None) -> None:
    """Make the environment of MONAI Label, once for this release: some gigabytes, most of them PyTorch.

    ``clinbundles label start`` makes it too where it is not there.

    Args:
        constraints: file of versions, one of each package; None takes constraints-label.txt of this release.
        cache_dir: folder of the environments; None takes clinbundles in the user's cache folder.
    """
    print(label_python(constraints=constraints, cache_dir=cache_dir))


def label_python(*, constraints: str | None = None, cache_dir: str | None = None) -> Path:
    """Return the interpreter of the environment, which is made if it is not there.

    Args:
        constraints: as :func:`make_environment`.
        cache_dir: as :func:`make_environment`.

    Raises:
        FileNotFoundError: there are no such constraints.
        ValueError: another process makes it; no interpreter of the right version is there; the installation fails.
    """
    versions = Path(constraints) if constraints else CONSTRAINTS
    if not versions.is_file():
        raise FileNotFoundError(
            f"{versions}: no such file; the versions of MONAI Label's packages were expected there."
        )
    cache = Path(cache_dir or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "clinbundles"))
    folder = cache.expanduser().absolute() / f"label-{key_of(versions.read_bytes(), requirements())}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if python.exists():
        return python
    lock = folder.with_name(f"{folder.name}.lock")
    lock_folder(lock, doing="installation of MONAI Label")
    try:
        print(f"making the environment of MONAI Label, which takes minutes: {folder}", file=sys.stderr)
        with replacing(folder) as partial:
            _install(partial, versions)
    finally:
        unlock_folder(lock)
        lock.rmdir()
    return python


def key_of(constraints: bytes, needed: Iterable[str]) -> str:
    """Name an environment by all that decides what is in it."""
    text = "\n".join([PYTHON, _version(), *needed]).encode()
    return hashlib.sha256(constraints + b"\n" + text).hexdigest()[:12]


def requirements() -> list[str]:
    """List the packages that bundles and MONAI Label need, as pip takes them."""
    try:
        lines = requires("clinbundles") or []
    except PackageNotFoundError as error:
        raise ValueError("clinbundles is not installed, so that its requirements are not known.") from error
    plain = [line for line in lines if "extra ==" not in line]
    label = [line for line in lines if re.search(r"extra == ['\"]label['\"]", line)]
    return [line.partition(";")[0].strip() for line in (*plain, *label)]


def _version() -> str:
    try:
        return version("clinbundles")
    except PackageNotFoundError:
        return ""


def _install(folder: Path, constraints: Path) -> None:
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if uv is not None:
        make = [uv, "venv", "--quiet", "--python", PYTHON, str(folder)]
        install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    else:
        make = [_interpreter(), "-m", "venv", str(folder)]
        install = [str(python), "-m", "pip", "install", "--quiet"]
    for command in (make, [*install, "-c", str(constraints), *requirements()]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())[-300:] or f"exit status {done.returncode}"
            raise ValueError(f"the environment of MONAI Label cannot be made ({Path(command[0]).name}: {said}).")


def _interpreter() -> str:
    """The interpreter for pip's way, which brings none."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" == PYTHON:
        return sys.executable
    if (other := shutil.which(f"python{PYTHON}")) is None:
        raise ValueError(f"MONAI Label runs on Python {PYTHON}, which is not there; nor is uv, which would bring it.")
    return other
