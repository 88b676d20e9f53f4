"""Run lengths of DICOM (PS3.5 annex G): how much they decode to, counted before any of it is decoded."""

from __future__ import annotations

import itertools
import struct

_HEADER_BYTES, _MOST_SEGMENTS = 64, 15


def segment_sizes(frame: bytes, *, most: int) -> list[int]:
    """Count the bytes that each segment of a frame decodes to.

    Args:
        frame: the header of 64 bytes, and the segments.
        most: bytes of a segment, at which the count of one that goes on ends.

    Raises:
        ValueError: the header names more than 15 segments, or places that are not behind each other in the frame.
    """
    if len(frame) < _HEADER_BYTES:
        raise ValueError(f"its RLE header has {len(frame)} of {_HEADER_BYTES} bytes")
    count, *offsets = struct.unpack("<16L", frame[:_HEADER_BYTES])
    if not 1 <= count <= _MOST_SEGMENTS:
        raise ValueError(f"its RLE header tells of {count} segments, expected 1 to {_MOST_SEGMENTS}")
    places = [*offsets[:count], len(frame)]
    if places[0] < _HEADER_BYTES or places != sorted(places):
        raise ValueError("its RLE header places segments outside the frame or not behind each other")
    return [_decoded_size(frame, *pair, most=most) for pair in itertools.pairwise(places)]


def _decoded_size(frame: bytes, place: int, end: int, *, most: int) -> int:
    size = 0
    while place < end and size <= most:
        head = frame[place]
        if head < 128:
            length = min(head + 1, end - place - 1)
            size, place = size + length, place + 1 + head + 1
        elif head > 128:
            size, place = size + (257 - head) * (place + 1 < end), place + 2
        else:
            place += 1
    return size
