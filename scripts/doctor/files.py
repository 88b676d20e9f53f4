"""The files of a bundle's folder that are looked at before any of them is run, and the links among them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from clinbundles.scripts.bundle import config_names, read_configs
from clinbundles.scripts.doctor.code import IN_FOLDER, leaves


def files_of(folder: Path) -> list[Path]:
    """List all files of a folder, but those behind a link to a folder, of which :func:`strange_links` tells."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def strange_links(folder: Path) -> Iterator[str]:
    """List the links in a folder behind which nothing is looked at, while an import or a config would go there.

    Args:
        folder: of the bundle, which may be a link itself.

    Yields:
        "models is a link to a folder", a link a line; one to a file of the same folder is none of them.
    """
    root = Path(os.path.realpath(folder))
    for path in sorted(each for each in folder.rglob("*") if each.is_symlink()):
        place = path.relative_to(folder).as_posix()
        if path.is_dir():
            yield f"{place} is a link to a folder"
        elif not Path(os.path.realpath(path)).is_relative_to(root):
            yield f"{place} is a link out of the bundle"


def exported_networks(folder: Path) -> Iterator[Path]:
    """List the files of a bundle that its configs load as TorchScript, whatever they hold.

    Args:
        folder: of the bundle.

    Raises:
        ValueError: a config loads another file than one of the bundle; or it is no JSON object.
    """
    for name in config_names(folder):
        content = read_configs(folder, [name])
        for key, value, _ in leaves(content):
            if key.rpartition("::")[2] != "filename_prefix_or_stream":
                continue
            place = content.get("ckpt_path") if value == "@ckpt_path" else value
            if not isinstance(place, str) or not re.fullmatch(IN_FOLDER, place):
                raise ValueError(f"configs/{name}.json would load {place!r}, which is no file of the bundle")
            yield folder / place.partition("'/")[2].removesuffix("'")
