"""The most that an image file may hold: told by its header, before a pixel is decoded or memory is taken for one.

No torch is needed here.
"""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

VARIABLE = "CLINBUNDLES_MAX_IMAGE_MB"
# With it every reader keeps below 2 GB, of which Python and its libraries take one.
DEFAULT_MB = 320
# What a pixel of a picture counts at least: Pillow keeps colours so. Of JPEG 2000 it is decoded to 32 bits a sample.
PIXEL_BYTES, JPEG_2000_PIXEL_BYTES = 4, 8
_PART = 1 << 20


class TooLargeError(ValueError):
    """An image larger than the limit, in one sentence that names the file and the way to raise it."""


def max_bytes() -> int:
    """Return the limit in bytes: 320 MB, or what the environment variable CLINBUNDLES_MAX_IMAGE_MB says.

    Raises:
        ValueError: the variable is no whole number of 1 or more.
    """
    text = os.environ.get(VARIABLE, str(DEFAULT_MB)).strip()
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{VARIABLE} is {text!r}, expected a whole number of megabytes, such as {DEFAULT_MB}.")
    return int(text) * 10**6


def check_bytes(path: str | os.PathLike, number: int, what: str) -> None:
    """Refuse what takes more bytes than the limit.

    Args:
        path: the file, to name it.
        number: of bytes.
        what: what takes them, such as "a volume of 512x512x4000 voxels".

    Raises:
        TooLargeError: it does.
    """
    if number > (limit := max_bytes()):
        needed = -(-number // 10**6)
        raise TooLargeError(
            f"{os.fspath(path)}: {what} counts {needed:,} MB, and {limit // 10**6:,} MB are read at most: if it is no "
            f"mistake, set the environment variable {VARIABLE} to {needed}."
        )


def check_inflated(path: str | os.PathLike, number: int) -> None:
    """Refuse a file that inflates to more bytes than the limit, as soon as ``number`` of them are.

    Raises:
        TooLargeError: it does.
    """
    if number > (limit := max_bytes()):
        raise TooLargeError(
            f"{os.fspath(path)}: inflates to more than the {limit // 10**6:,} MB that are read at most: if it is no "
            f"mistake, set the environment variable {VARIABLE} to more."
        )


def check_file(path: Path) -> None:
    """Refuse a file that is longer than the limit.

    Raises:
        TooLargeError: it is.
    """
    check_bytes(path, path.stat().st_size, "the file")


def check_picture(path: str | os.PathLike, width: int, height: int, *, pixel_bytes: int = PIXEL_BYTES) -> None:
    """Refuse a picture that takes more than the limit.

    Args:
        path: the file, to name it.
        width: in px.
        height: in px.
        pixel_bytes: what a pixel counts, at least four: more where a decoder or what follows it takes more.

    Raises:
        TooLargeError: it does.
    """
    check_bytes(path, width * height * max(PIXEL_BYTES, pixel_bytes), f"an image of {width}x{height} px")


def sample_bytes(bits: int) -> int:
    """Return what a sample of so many bits counts: one byte, two, or sixteen beyond, for it goes through float64."""
    return 1 if bits <= 8 else 2 if bits <= 16 else 16


def gunzip(path: Path) -> bytes:
    """Decompress a gzip file that inflates to no more than the limit.

    Raises:
        TooLargeError: it inflates to more.
        EOFError, OSError, zlib.error: it is broken.
    """
    with gzip.open(path) as stream:
        content = stream.read(max_bytes() + 1)
    check_inflated(path, len(content))
    return content


def inflated_size(path: Path, deflated: bytes, *, wbits: int = zlib.MAX_WBITS) -> int:
    """Count the bytes that deflated ones inflate to, and see that their checksum is right; none of them is kept.

    Args:
        path: the file, to name it.
        deflated: by zlib or, with negative ``wbits``, without its frame and checksum.
        wbits: as of :func:`zlib.decompressobj`.

    Raises:
        TooLargeError: they are more than the limit.
        zlib.error: they are broken or cut off.
    """
    inflater, size, rest = zlib.decompressobj(wbits), 0, deflated
    while rest and not inflater.eof:
        size += len(inflater.decompress(rest, _PART))
        rest = inflater.unconsumed_tail
        check_inflated(path, size)
    size += len(inflater.flush())
    if not inflater.eof:
        raise zlib.error("incomplete or truncated stream")
    return size
