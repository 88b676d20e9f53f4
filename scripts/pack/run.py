"""A bundle as one zip that runs where this project is not installed.

clinbundles pack gaze_polyp_segmentation
clinbundles pack --all --out dist

"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clinbundles.engines.outputs.files import write_atomically
from clinbundles.scripts.bundle import ROOT, find_bundle
from clinbundles.scripts.pack.archive import zipped
from clinbundles.scripts.pack.closure import NAME, carried_modules
from clinbundles.scripts.pack.sbom import bill_of_materials

FOLDERS = ("configs", "docs", "models", "samples")
LEFT_OUT = ("reproduce.json",)  # read by `clinbundles reproduce` alone
# What a folder of this or that machine would look like in a text.
OF_A_MACHINE = re.compile(rb"(?<![\w.:/])/(?:home|root|Users|work|tmp|mnt)/[\w.-]")


def pack(bundle: str | None = None, *, all: bool = False, out: str = "dist") -> None:
    """Write NAME_vVERSION.zip of a bundle: configs, weights, samples, docs, and the code that the configs name.

    Unzipped, it runs with ``python -m monai.bundle run`` from its folder where this project is not installed. Its code
    lies below ``scripts/NAME/``, so that two of our bundles in one process do not run each other's. The same input
    gives the same bytes. ``model_info.json`` beside the zips has the checksum of each.

    Args:
        bundle: name of a bundle, in ./bundles or in the checkout of this project, or a folder.
        all: pack every bundle of the checkout.
        out: folder of the zips; made if it does not exist.
    """
    if (bundle is None) != all:
        raise ValueError("say which bundle to pack, by its name or folder, or --all.")
    folders = sorted(path.parents[1] for path in ROOT.glob("bundles/*/configs/metadata.json")) if all else []
    folders = folders or [find_bundle(str(bundle))]
    packed = {}
    for number, folder in enumerate(folders, start=1):
        name, content = packed_bundle(folder)
        packed[name] = content
        print(f"packed {number} of {len(folders)}: {name}, {len(content) / 1e6:.1f} MB", file=sys.stderr)
    target = Path(out)
    target.mkdir(parents=True, exist_ok=True)
    for name, content in packed.items():
        write_atomically(target / f"{name}.zip", content)
    _write_model_info(target / "model_info.json", packed)
    print(f"{len(packed)} zips and model_info.json: {target}")


def packed_bundle(folder: Path) -> tuple[str, bytes]:
    """Return the versioned name of a bundle's zip, and its bytes.

    Raises:
        FileNotFoundError: the bundle has no weights.
        ValueError: a text of the bundle names a folder of this machine.
    """
    metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    name = folder.resolve().name
    if not (folder / "models" / "model.pt").is_file():
        raise FileNotFoundError(f"{folder / 'models' / 'model.pt'}: no weights, and a zip without them runs nothing.")
    files = bundle_files(folder)
    texts = {path: content.decode("utf-8") for path, content in files.items() if _is_config(path)}
    modules = carried_modules(texts.values(), ROOT)
    for path, text in texts.items():
        files[path] = NAME.sub(rf"scripts.{name}\1", text).encode()
    for file in modules.values():
        inside = file.relative_to(ROOT).as_posix()
        files[f"scripts/{name}/{inside}"] = file.read_bytes()
    for path, content in files.items():
        if path.endswith((".json", ".md", ".txt", ".py", ".conf")) and (found := OF_A_MACHINE.search(content)):
            line = content[: found.start()].count(b"\n") + 1
            raise ValueError(f"{name}/{path}, line {line}: names a folder of a machine ({found[0].decode()}…).")
    files["sbom.cdx.json"] = bill_of_materials(name, metadata, files).encode()
    version = metadata["version"]
    return f"{name}_v{version}", zipped({f"{name}/{path}": content for path, content in files.items()})


def bundle_files(folder: Path) -> dict[str, bytes]:
    """Read what a zip takes of a bundle's folder, by path in it: no hidden file, nothing of Python's caches."""
    paths = [folder / "LICENSE", *(path for each in FOLDERS for path in sorted((folder / each).rglob("*")))]
    files = {}
    for path in paths:
        inside = path.relative_to(folder)
        hidden = any(part.startswith((".", "__")) for part in inside.parts)
        if path.is_file() and not hidden and path.name not in LEFT_OUT:
            files[inside.as_posix()] = path.read_bytes()
    tracking = ROOT / "mlflow" / "tracking.json"
    if tracking.is_file():
        files["configs/tracking.json"] = tracking.read_bytes()
    return files


def _is_config(path: str) -> bool:
    return path.startswith("configs/") and path.endswith(".json")


def _write_model_info(path: Path, packed: Mapping[str, bytes]) -> None:
    """Add the checksums of new zips to those that the file has."""
    entries: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name, content in packed.items():
        entries[name] = {
            "checksum": hashlib.sha1(content, usedforsecurity=False).hexdigest(),  # what MONAI's download compares
            "sha256": hashlib.sha256(content).hexdigest(),
            "source": f"{name}.zip",
        }
    write_atomically(path, json.dumps(dict(sorted(entries.items())), indent=2) + "\n")
