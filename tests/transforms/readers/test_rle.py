import struct

import pytest

from clinbundles.transforms.readers.rle import segment_sizes


def frame_of(*segments: bytes, count: int | None = None, offsets: tuple[int, ...] | None = None) -> bytes:
    places = [64 + sum(map(len, segments[:k])) for k in range(len(segments))] if offsets is None else list(offsets)
    header = [len(segments) if count is None else count, *places]
    return struct.pack("<16L", *header, *[0] * (16 - len(header))) + b"".join(segments)


def test_repeats_and_literals_are_counted_as_what_they_decode_to() -> None:
    # 128 times one byte, 3 literal bytes, nothing, 2 times one byte.
    assert segment_sizes(frame_of(b"\x81\x07" + b"\x02abc" + b"\x80" + b"\xff\x01"), most=1000) == [133]
    assert segment_sizes(frame_of(b"\x81\x07", b"\x00a"), most=1000) == [128, 1]


def test_bytes_that_a_cut_segment_lacks_do_not_count() -> None:
    assert segment_sizes(frame_of(b"\x05abc"), most=1000) == [3]
    assert segment_sizes(frame_of(b"\x81"), most=1000) == [0]


def test_the_count_ends_soon_after_the_most_that_is_allowed() -> None:
    [size] = segment_sizes(frame_of(b"\x81\x07" * 10_000), most=256)
    assert 256 < size <= 256 + 128


@pytest.mark.parametrize(
    ("frame", "fault"),
    [
        (b"\x02\0\0\0", "has 4 of 64 bytes"),
        (frame_of(b"\x81\x07", count=4_000_000_000), "tells of 4000000000 segments"),
        (frame_of(b"\x81\x07", count=0), "tells of 0 segments"),
        (frame_of(b"\x81\x07", b"\x81\x07", offsets=(64, 2**31)), "outside the frame or not behind each other"),
        (frame_of(b"\x81\x07", b"\x81\x07", offsets=(66, 64)), "outside the frame or not behind each other"),
        (frame_of(b"\x81\x07", offsets=(4,)), "outside the frame or not behind each other"),
    ],
)
def test_a_header_that_lies_is_refused(frame: bytes, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        segment_sizes(frame, most=1000)
