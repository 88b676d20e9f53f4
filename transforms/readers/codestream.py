"""Headers of JPEG, JPEG-LS and JPEG 2000 codestreams: what the coded pixels are, whatever stands around them."""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from dataclasses import dataclass

# Start of frame of JPEG (all but DHT, JPG and DAC in that range) and of JPEG-LS.
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_APP0, _APP14 = 0xE0, 0xEE
_RGB_NAMES = (b"RGB", b"rgb")


@dataclass(frozen=True)
class Codestream:
    """Size in px, samples a pixel and bits a sample of coded pixels, and the colours that their markers tell.

    ``colours`` is that of what a decoder hands out: RGB or YBR, or nothing where no marker tells it. ``transforms`` is
    True where JPEG 2000 turns three components into others by itself (RCT, ICT), and False where it does not.
    """

    rows: int
    columns: int
    samples: int
    bits: int
    colours: str = ""
    transforms: bool | None = None


def first_codestream(pixel_data: bytes) -> Codestream | None:
    """Read the header of the first frame of encapsulated pixel data (PS3.5 A.4); None where none can be read."""
    start = 16 + int.from_bytes(pixel_data[4:8], "little")  # behind the offset table and the head of the first item
    content = pixel_data[start:]
    try:
        if content[:2] == b"\xff\xd8":
            return _jpeg(content)
        soc = content.find(b"\xff\x4f\xff\x51")  # some writers leave the boxes of JP2 around it
        return _jpeg_2000(content, soc + 2) if soc >= 0 else None
    except (IndexError, struct.error):
        return None


def largest_codestream(content: bytes) -> Codestream | None:
    """Read the header of a JPEG or JPEG 2000 image, of several the largest one's, as boxes around it may hide another.

    None where there is none to be read.
    """
    if content[:2] == b"\xff\xd8":
        try:
            return _jpeg(content)
        except (IndexError, struct.error):
            return None
    headers = []
    for mark in re.finditer(b"\xff\x4f\xff\x51", content):
        with suppress(IndexError, struct.error):
            headers.append(_jpeg_2000(content, mark.start() + 2))
    return max(headers, key=lambda header: header.rows * header.columns * header.samples, default=None)


def _jpeg(content: bytes) -> Codestream | None:
    offset, colours = 2, ""
    while content[offset] == 0xFF:
        marker = content[offset + 1]
        if marker == 0xFF:  # a fill byte
            offset += 1
            continue
        (length,) = struct.unpack_from(">H", content, offset + 2)
        segment = content[offset + 4 : offset + 2 + length]
        if marker == _APP0 and segment[:4] == b"JFIF":
            colours = colours or "YBR"
        elif marker == _APP14 and segment[:5] == b"Adobe" and len(segment) >= 12:
            colours = "YBR" if segment[11] == 1 else "RGB"
        elif marker in _FRAMES:
            bits, rows, columns, samples = struct.unpack_from(">BHHB", segment)
            if segment[6 : 6 + 3 * samples : 3] in _RGB_NAMES:
                colours = "RGB"
            elif not colours and len(set(segment[7 : 6 + 3 * samples : 3])) > 1:  # only chroma is subsampled
                colours = "YBR"
            return Codestream(rows, columns, samples, bits, colours if samples == 3 else "")
        offset += 2 + length
    return None


def _jpeg_2000(content: bytes, offset: int) -> Codestream:
    """Read the header from its SIZ marker on (ISO/IEC 15444-1 A.5.1, and A.6.1 for the component transform)."""
    right, bottom, left, top = struct.unpack_from(">4I", content, offset + 6)
    samples, depth = struct.unpack_from(">HB", content, offset + 38)
    size = bottom - top, right - left, samples, (depth & 0x7F) + 1
    while content[offset] == 0xFF and content[offset + 1] != 0x90:  # the first tile
        if content[offset + 1] == 0x52:
            transforms = content[offset + 8] == 1
            return Codestream(*size, "RGB" if transforms else "", transforms)
        offset += 2 + struct.unpack_from(">H", content, offset + 2)[0]
    return Codestream(*size)
