"""What tells the results of one bundle from those of another: the contents of its weights, configs and code.

A path is no content: other weights may lie there by now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clinbundles.engines.weights_card import read_card, weights_sentence
from clinbundles.scripts.bundle import ROOT, open_configs

CODE = ("transforms", "nets", "engines")
WEIGHTS = "ckpt_path"


def digest_of_bundle(folder: Path) -> str:
    """Hash all that a result of a bundle rests on: its weights, its configs, its code, and the code of this module.

    Args:
        folder: of the bundle; a packed one has its code with it, and another uses that of this package.
    """
    code = [folder] if any(folder.rglob("*.py")) else [ROOT / name for name in CODE]
    models = [folder / "models" / name for name in ("model.pt", "model.json")]
    files = [*filter(Path.is_file, models), *sorted((folder / "configs").glob("*.json"))]
    files += [file for place in (*code, ROOT / "scripts" / "deploy") for file in sorted(place.rglob("*.py"))]
    return hashlib.sha256(repr([(file.name, digest_of_file(file)) for file in files]).encode()).hexdigest()


def digest_of_file(file: Path) -> str:
    """Hash a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def note_of(weights: Path) -> str:
    """Say which weights they are, by their SHA-256, and what they must not be used for, by their card."""
    return f"Weights: {weights_sentence(digest_of_file(weights), read_card(weights))}"


def weights_of(folder: Path, options: Mapping[str, Any]) -> Path:
    """Find the file of weights that an inference with these options loads.

    Raises:
        FileNotFoundError: there is none.
    """
    weights = Path(str(open_configs(folder, ["inference"], **options).get_parsed_content(WEIGHTS)))
    if not weights.is_file():
        raise FileNotFoundError(f"--{WEIGHTS} {weights}: no such file.")
    return weights


def by_content(value: Any) -> Any:
    """Give the value of an option with the hash of a file instead of its path, in lists and dictionaries too."""
    if isinstance(value, Mapping):
        return sorted((str(key), by_content(each)) for key, each in value.items())
    if isinstance(value, list | tuple):
        return [by_content(each) for each in value]
    if isinstance(value, str | Path) and _is_file(Path(value)):
        return ("file", digest_of_file(Path(value)))
    return value


def options_by_content(options: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Give options in the order of their names, those that name a file by its content."""
    return [(name, by_content(value)) for name, value in sorted(options.items())]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text that can be no path
        return False
