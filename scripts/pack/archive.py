"""Zips whose bytes depend on what is in them alone, and their safe opening."""

from __future__ import annotations

import io
import json
import stat
import struct
import unicodedata
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
MAX_NAME, MAX_PATH = 255, 1024  # bytes of one part, as file systems have it, and of all
# What zipfile raises for them: NotImplementedError for a version, or a flag, that it cannot read.
DAMAGE = (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OverflowError, UnicodeError, struct.error)


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
        ValueError: the file is no whole zip; an entry leads out of the folder, is a link, is encrypted, has a name that
            some file system cannot hold or stands twice; there are too many files or bytes; there is not one folder at
            the top.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.filename.endswith("/")]
            _check_entries(path, entries, max_bytes)
            for entry in entries:
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("wb") as copy:
                    _copy_whole(source, copy, entry.file_size)
    except DAMAGE as error:
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
    seen: dict[str, PurePosixPath | None] = {}  # folders, and None for a file
    for entry in entries:
        if (fault := _fault_of(entry)) is not None:
            raise ValueError(f"{path}: {entry.filename!r} {fault}.")
        file = PurePosixPath(entry.filename)
        if _folded(file) in seen or any(seen.setdefault(_folded(each), each) != each for each in file.parents):
            raise ValueError(
                f"{path}: {entry.filename!r} is there twice, as a folder, too, or in another case of its letters."
            )
        seen[_folded(file)] = None
    tops = {entry.filename.partition("/")[0] for entry in entries}
    if len(tops) != 1 or any("/" not in entry.filename for entry in entries):
        raise ValueError(f"{path}: is no packed bundle, which has one folder at its top.")


def _fault_of(entry: zipfile.ZipInfo) -> str | None:
    """What keeps an entry from being unzipped: its name, or what it is."""
    parts = entry.filename.split("/")
    if {"", ".", ".."} & set(parts) or "\\" in entry.filename or ":" in entry.filename:
        return "leads out of the folder it is unzipped to, or is no name of a file"
    if any(unicodedata.category(each) == "Cc" for each in entry.orig_filename):
        return "is no name of a file"
    if max(len(part.encode()) for part in parts) > MAX_NAME or len(entry.filename.encode()) > MAX_PATH:
        return "is too long a name"
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        return "is a link, or no file"
    if entry.header_offset < 0:
        return "would lie before the file's beginning: it is no whole zip"
    if entry.flag_bits & 1:
        return "is encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in a way that is not read; zip it again, by deflate"
    return None


def _folded(path: PurePosixPath) -> str:
    """What a file system that knows no case, or one spelling of a letter with its accent, takes a path for."""
    return unicodedata.normalize("NFC", str(path)).casefold()
