"""Hashes of files and folders, by which a study and a bundle are told from others."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from clinbundles.transforms.readers.folder import files_below

from .studies import Study


def hash_files(path: Path) -> str:
    """Hash the bytes of a file; of a folder, the names and bytes of its files, without hidden and compiled ones.

    Raises:
        OSError: a file cannot be read, or is a pipe, a socket or a device.
    """
    if not path.is_dir():
        return hash_file(path)
    files = {os.fsencode(file.relative_to(path).as_posix()).hex(): file for file in files_below(path)}
    return hash_texts(f"{name} {hash_file(files[name])}" for name in sorted(files) if files[name].suffix != ".pyc")


def source_of(study: Study) -> str:
    """Hash a study, see :func:`hash_files`; empty where it cannot be read."""
    try:
        return hash_files(study.path)
    except OSError:
        return ""


def hash_file(path: Path) -> str:
    """Hash the bytes of a file, see :func:`hash_files`."""
    if path.exists() and not path.is_file():  # of a pipe, reading would wait for ever
        raise OSError(f"{path}: is a pipe, a socket or a device, and no file.")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_texts(texts: Iterable[str]) -> str:
    """Hash texts in their order."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
