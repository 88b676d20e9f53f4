"""The bundles that a server offers: found by name, folder or zip, and laid into its folder with whose code they run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from clinbundles.engines.outputs.files import replacing
from clinbundles.scripts.bundle import ROOT, find_bundle
from clinbundles.scripts.pack.archive import unzip
from clinbundles.scripts.pack.pure import check_is_full
from clinbundles.scripts.pack.run import bundle_files

WINGS = ("transforms", "nets", "engines", "scripts")


def lay_out(bundles: Sequence[str], folder: Path) -> list[Path]:
    """Copy bundles into the folder of a server, each below the hash of its content, and return where they lie.

    So weights that are trained there belong to one release of a bundle, and are there again when it is served again.

    Args:
        bundles: names or folders of bundles, zips of clinbundles pack, and folders of such zips.
        folder: of the server; it exists.

    Raises:
        FileNotFoundError, ValueError: one is not there, is no bundle or a pure zip, has no weights, or two have one
            name.
    """
    places = [_laid(source, folder) for bundle in bundles for source in _sources(bundle)]
    names = [place.name for place in places]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} is given twice: a server tells bundles apart by their names.")
    for place in places:
        check_is_full(place, place.name)
        if not (place / "models" / "model.pt").is_file():
            raise FileNotFoundError(f"{place.name}: has no weights models/model.pt, and cannot be served without them.")
    return places


def link_code(folder: Path) -> Path:
    """Link this project's code, and nothing else of its environment, below a folder to put on Python's path."""
    package = folder / "code" / "clinbundles"
    package.mkdir(parents=True, exist_ok=True)
    for wing in WINGS:
        link = package / wing
        if link.is_symlink() and link.resolve() != (ROOT / wing).resolve():
            link.unlink()
        if not link.is_symlink():
            link.symlink_to(ROOT / wing, target_is_directory=True)
    return package.parent


def _sources(bundle: str) -> list[Path]:
    path = Path(bundle)
    if path.suffix == ".zip":
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file.")
        return [path]
    if path.is_dir() and not (path / "configs").is_dir() and (zips := sorted(path.glob("*.zip"))):
        return zips
    return [find_bundle(bundle)]


def _laid(source: Path, folder: Path) -> Path:
    is_zip = source.suffix == ".zip"
    files = {} if is_zip else bundle_files(source) | _packed_code(source)
    hashes = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    content = source.read_bytes() if is_zip else json.dumps(hashes, sort_keys=True).encode()
    target = folder / "bundles" / hashlib.sha256(content).hexdigest()[:12]
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as partial:
            partial.mkdir()
            for path, content in files.items():
                copy = partial / source.name / path
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(content)
            if is_zip:
                unzip(source, partial)
    (place,) = target.iterdir()
    return place.resolve()


def _packed_code(source: Path) -> dict[str, bytes]:
    """The code of a bundle that was packed and unzipped; one of the checkout has none of its own."""
    files = sorted((source / "scripts").rglob("*.py"))
    return {path.relative_to(source).as_posix(): path.read_bytes() for path in files}
