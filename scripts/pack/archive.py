"""Zips whose bytes depend on what is in them alone, and their safe opening."""

from __future__ import annotations

import io
import json
import stat
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

# The first date that a zip can hold.
DATE = (1980, 1, 1, 0, 0, 0)
# More than any bundle of weights and samples needs, and less than a bomb unfolds to.
MAX_BYTES = 4 * 2**30
MAX_FILES = 20_000


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Zip files by name: sorted, of one date and mode, so that the same files give the same bytes.

    Args:
        files: contents by their paths in the zip, with "/" between parts.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, wherever it is made
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])
    return stream.getvalue()


def as_json(content: Any) -> bytes:
    """Write a JSON object as the files of a zip are."""
    return (json.dumps(content, indent=4, ensure_ascii=False) + "\n").encode()


def unzip(path: Path, folder: Path, *, max_bytes: int = MAX_BYTES) -> Path:
    """Unzip a packed bundle below a folder, and return the bundle's own folder.

    Args:
        path: the zip, with one folder at its top.
        folder: where to; it exists.
        max_bytes: of all files together, unzipped.

    Raises:
        ValueError: the file is no whole zip; an entry leads out of the folder, is a link or stands twice; there are too
            many files or bytes; there is not one folder at the top.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _check_entries(path, entries, max_bytes)
            for entry in entries:
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("wb") as copy:
                    _copy_whole(source, copy, entry.file_size)
    # zipfile raises NotImplementedError for a compression, and RuntimeError for a password, that it cannot read.
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path}: is no whole zip ({error}).") from error
    except zlib.error as error:
        raise ValueError(f"{path}: is damaged ({error}).") from error
    return folder / PurePosixPath(entries[0].filename).parts[0]


def _copy_whole(source: IO[bytes], target: IO[bytes], size: int) -> None:
    left = size
    while chunk := source.read(2**20):
        left -= len(chunk)
        if left < 0:
            raise zipfile.BadZipFile("an entry is longer than it says")
        target.write(chunk)


def _check_entries(path: Path, entries: Sequence[zipfile.ZipInfo], max_bytes: int) -> None:
    size = sum(entry.file_size for entry in entries)
    if size > max_bytes or len(entries) > MAX_FILES:
        raise ValueError(f"{path}: unfolds to {len(entries)} files of {size / 2**30:.1f} GiB, more than is taken.")
    names = set()
    for entry in entries:
        parts = PurePosixPath(entry.filename).parts
        if entry.filename.startswith("/") or ".." in parts or "\\" in entry.filename or ":" in parts[0]:
            raise ValueError(f"{path}: {entry.filename!r} leads out of the folder it is unzipped to.")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise ValueError(f"{path}: {entry.filename!r} is a link.")
        if entry.filename.lower() in names:
            raise ValueError(f"{path}: {entry.filename!r} is there twice.")
        names.add(entry.filename.lower())
    tops = {PurePosixPath(entry.filename).parts[0] for entry in entries if len(PurePosixPath(entry.filename).parts) > 1}
    if len(tops) != 1 or any("/" not in entry.filename for entry in entries):
        raise ValueError(f"{path}: is no packed bundle, which has one folder at its top.")
