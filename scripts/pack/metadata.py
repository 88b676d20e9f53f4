"""What a zip takes of a bundle's metadata.json, checked before anything is made of it."""

from __future__ import annotations

import json
from typing import Any

PATH = "configs/metadata.json"
VERSIONS = ("version", "monai_version", "pytorch_version", "numpy_version")
PACKAGES, OF_OPTIONS = "required_packages_version", "packages_of_options"
# What the page and the metadata of a pure zip repeat.
TEXTS = ("name", "description", "intended_use")


def read_metadata(content: bytes | None, name: str, *, texts: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read the metadata of a bundle, of which a zip has its name and its bill of materials.

    Args:
        content: of the file, or None where there is none.
        name: of the bundle, for the errors.
        texts: entries that have to be there, as text.

    Raises:
        FileNotFoundError: there is no file.
        ValueError: it is no JSON object, an entry is missing, or a version is none, such as one with a slash in it,
            which would lead out of the folder of the zips.
    """
    file = f"{name}/{PATH}"
    if content is None:
        raise FileNotFoundError(f"{file}: no such file, and a zip has its version from it.")
    try:
        metadata = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: is not JSON ({error}).") from error
    if not isinstance(metadata, dict):
        raise ValueError(f"{file}: is {type(metadata).__name__}, expected an object.")
    for entry in VERSIONS:
        _check_version(metadata.get(entry), f"{file}: {entry}")
    for entry, packages in ((PACKAGES, metadata.get(PACKAGES)), (OF_OPTIONS, metadata.get(OF_OPTIONS, {}))):
        if not isinstance(packages, dict):
            raise ValueError(f"{file}: {entry} is {packages!r}, expected versions by name of the package, or {{}}.")
        for package, version in packages.items():
            _check_version(version, f"{file}: {entry} of {package!r}")
    for entry in texts:
        if not isinstance(metadata.get(entry), str):
            raise ValueError(f"{file}: {entry} is {metadata.get(entry)!r}, expected a text.")
    return metadata


def _check_version(version: Any, place: str) -> None:
    from packaging.version import InvalidVersion, Version

    try:
        if not isinstance(version, str) or version != version.strip():
            raise InvalidVersion
        Version(version)
    except InvalidVersion:
        raise ValueError(f'{place} is {version!r}, expected a version, such as "0.1.0".') from None
