"""What the studies of an output folder were made of and with: an answer is given again only where both are the same."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinbundles.engines.folder_lock import lock_folder, unlock_folder
from clinbundles.engines.outputs.files import write_atomically
from clinbundles.scripts.bundle import ROOT, find_bundle

from .hashes import hash_file, hash_files, hash_texts
from .names import claim_names
from .studies import WAITING, Status, Study, read_statuses

FILE = "settings.json"
OF_BUNDLE = ("configs", "models", "scripts")
OF_PROJECT = ("transforms", "nets", "engines")  # what configs name


@dataclass(frozen=True)
class Settings:
    """What an output folder is made with.

    Attributes:
        bundle_sha256: of the zip; of a folder, of its configs, models and code and of this project's.
        config: of the bundle.
        options: values of the config, as JSON; of a file, with the hash of its bytes.
    """

    bundle_sha256: str
    config: str
    options: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """Hash of them all, which the status of each study names."""
        return hashlib.sha256(json.dumps(vars(self), sort_keys=True).encode()).hexdigest()


def settings_of(bundle: str, config: str, options: Mapping[str, Any]) -> Settings:
    """Describe what a command makes its studies with.

    Raises:
        FileNotFoundError: there is no such bundle.
    """
    path = Path(bundle)
    if path.suffix != ".zip":
        folder = find_bundle(bundle)
        parts = [*(folder / name for name in OF_BUNDLE), *(ROOT / name for name in OF_PROJECT)]
        digest = hash_texts(f"{part.name}: {hash_files(part)}" for part in parts if part.is_dir())
    elif path.is_file():
        digest = hash_file(path)
    else:
        raise FileNotFoundError(f"{path}: no such file.")
    values = {name.replace("::", "#"): _with_bytes(value) for name, value in options.items()}
    return Settings(digest, config, json.loads(json.dumps(values, sort_keys=True, default=str)))


def check_settings(output: Path, settings: Settings) -> None:
    """Refuse an output folder that was made with another bundle, config or option.

    Raises:
        ValueError: it is so; the message names what differs.
    """
    if (before := _read(output / FILE)) is None:
        return
    others = []
    if before.bundle_sha256 != settings.bundle_sha256:
        others.append(f"bundle (sha256 {before.bundle_sha256[:12]}, now {settings.bundle_sha256[:12]})")
    if before.config != settings.config:
        others.append(f"config ({before.config}, now {settings.config})")
    for name in sorted({*before.options, *settings.options}):
        old, new = (each.options.get(name, "its default") for each in (before, settings))
        if old != new:
            others.append(f"--{name} ({old}, now {new})")
    if others:
        raise ValueError(
            f"{output / FILE}: the studies there are of another {', '.join(others)}: choose another output."
        )


def claim(output: Path, settings: Settings, paths: Iterable[Path] = ()) -> list[Study]:
    """Write down what an output folder is made with, once, and what its studies are called.

    A torn file is written again.

    Args:
        output: folder of the outputs, made if it is not there.
        settings: that it is made with.
        paths: of studies.

    Returns:
        the studies by the names that they have, or have from now on.

    Raises:
        ValueError: as :func:`check_settings`, also where another process was faster.
    """
    _lock(output)
    try:
        check_settings(output, settings)
        if _read(output / FILE) is None:
            write_atomically(output / FILE, json.dumps(vars(settings), indent=4) + "\n")
        return claim_names(output / "status", paths)
    finally:
        unlock_folder(output)


def check_made(output: Path, settings: Settings) -> None:
    """Refuse an output folder that has a status of other settings.

    Raises:
        ValueError: it is so.
    """
    for status in read_statuses(output / "status"):
        check_status(output, status, settings.sha256)


def check_status(output: Path, status: Status, settings: str) -> None:
    """Refuse a status that is not of these settings, by their hash."""
    if status.status == WAITING or status.settings_sha256 == settings:
        return
    fault = "is of another bundle, config or options" if status.settings_sha256 else "does not say what it is made of"
    raise ValueError(f"{output / 'status' / status.study}.json: {fault}: choose another output.")


def _read(path: Path) -> Settings | None:
    try:
        return Settings(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _lock(output: Path) -> None:
    while True:
        with contextlib.suppress(ValueError):  # another process begins, too
            lock_folder(output, doing="process")
            return
        time.sleep(0.05)


def _with_bytes(value: Any) -> Any:
    return f"{value} (sha256 {hash_file(Path(value))})" if isinstance(value, str) and os.path.isfile(value) else value
