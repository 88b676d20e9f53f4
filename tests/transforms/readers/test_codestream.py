import io
from collections.abc import Callable

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import JPEG2000Lossless

from clinbundles.transforms.readers.codestream import Codestream, first_codestream

RAMP = np.tile(np.linspace(0, 255, 64).round().astype(np.uint8), (48, 1))
COLOUR = np.stack([RAMP, RAMP[:, ::-1], np.full_like(RAMP, 90)], axis=-1)


def encoded(values: np.ndarray, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, kind, **options)
    return stream.getvalue()


def header_of(content: bytes) -> Codestream | None:
    return first_codestream(pydicom.encaps.encapsulate([content]))


def test_the_size_the_samples_and_the_bits_are_those_of_the_coded_image(chest_dataset: Callable) -> None:
    assert header_of(encoded(RAMP, "JPEG")) == Codestream(rows=48, columns=64, samples=1, bits=8)
    dataset = chest_dataset(RAMP.astype(np.uint16) * 16, BitsStored=12)
    dataset.compress(JPEG2000Lossless)
    assert first_codestream(dataset.PixelData) == Codestream(48, 64, 1, 12, transforms=False)


def test_the_colours_of_a_jpeg_are_told_by_its_markers_and_names() -> None:
    jfif = encoded(COLOUR, "JPEG", subsampling=0)
    assert header_of(jfif) == Codestream(48, 64, 3, 8, "YBR")
    length = 4 + int.from_bytes(jfif[4:6], "big")
    plain = jfif[:2] + jfif[length:]
    assert header_of(plain) == Codestream(48, 64, 3, 8, "")
    for transform, colours in ((1, "YBR"), (0, "RGB")):
        adobe = b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0" + bytes([transform])
        assert header_of(plain[:2] + adobe + plain[2:]) == Codestream(48, 64, 3, 8, colours)
    subsampled = encoded(COLOUR, "JPEG", subsampling=2)
    assert header_of(subsampled[:2] + subsampled[length:]).colours == "YBR"
    assert header_of(encoded(COLOUR, "JPEG", keep_rgb=True)) == Codestream(48, 64, 3, 8, "RGB")


@pytest.mark.parametrize("boxes", [True, False])
def test_the_transform_of_jpeg_2000_is_told_with_and_without_the_boxes_of_a_file(boxes: bool) -> None:
    for transforms, colours in ((True, "RGB"), (False, "")):
        content = encoded(COLOUR, "JPEG2000", mct=int(transforms), no_jp2=not boxes)
        assert header_of(content) == Codestream(48, 64, 3, 8, colours, transforms=transforms)


def test_what_is_no_codestream_or_stops_within_its_header_has_none() -> None:
    assert header_of(b"no image") is None
    for content in (encoded(RAMP, "JPEG"), encoded(RAMP, "JPEG2000", no_jp2=True)):
        for end in (2, 10, 30):
            assert header_of(content[:end]) is None
