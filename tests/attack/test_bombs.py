"""Small files that unfold to gigabytes, or whose headers say so: refused by name, in little memory and time."""

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

MOST_BYTES, MOST_SECONDS = 2**31, 30.0
SIDE = 60000  # px; such a picture takes 3.6 GB a channel


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(side: int) -> bytes:
    """A whole PNG of one grey, whose rows are packed as they are made."""
    packer = zlib.compressobj(9)
    row = bytes(side + 1)
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg() -> bytes:
    """The head of a JPEG that tells of 65500 x 65500 px, and nothing behind it."""
    frame = struct.pack(">BHHB", 8, 65500, 65500, 1) + b"\x01\x11\x00"
    scan = b"\xff\xda" + struct.pack(">H", 8) + b"\x01\x01\x00\x00\x3f\x00"
    return b"\xff\xd8\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + scan + b"\xff\xd9"


def tiff() -> bytes:
    """A TIFF whose header tells of far more rows and columns than its strip holds."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.zeros((40, 40), np.uint8), compression="zlib", rowsperstrip=40)
    stream.seek(0)
    with tifffile.TiffFile(stream, mode="r+b") as file:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            file.pages.first.tags[name].overwrite(SIDE)
        return stream.getvalue()


def bmp() -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, SIDE, SIDE, 1, 24, 0, 0, 0, 0, 0, 0)


def pgm() -> bytes:
    return b"P5 %d %d 255\n" % (SIDE, SIDE)


def packed(content: bytes, *, times: int = 3000) -> bytes:
    """Bytes and then 3 GB of zeros, as gzip packs them, member after member."""
    return gzip.compress(content, mtime=0) + gzip.compress(bytes(2**20), mtime=0) * times


def nifti(*, behind: bytes = b"") -> bytes:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((1710, 1710, 855))
    header.set_sform(np.eye(4), code=1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    return header.binaryblock + bytes(4) + behind


def dicom() -> bytes:
    """A DICOM whose header tells of 65535 x 65535 px of 16 bits, and which holds 100 of them."""
    one = pydicom.Dataset()
    one.file_meta = pydicom.dataset.FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.SOPClassUID, one.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3.4"
    one.file_meta.MediaStorageSOPClassUID, one.file_meta.MediaStorageSOPInstanceUID = one.SOPClassUID, "1.2.3.4"
    one.Modality, one.BodyPartExamined, one.ViewPosition = "CR", "CHEST", "PA"
    one.Rows = one.Columns = 65535
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated = one.BitsStored = 16
    one.HighBit, one.PixelRepresentation = 15, 0
    one.PixelData = bytes(200)
    stream = io.BytesIO()
    one.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def zipped(*, lies: bool) -> bytes:
    """A zip of 5 GB of zeros, which its table tells, or tells not."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        block = bytes(2**24)
        with archive.open("bundle/models/model.pt", "w", force_zip64=True) as entry:
            for _ in range(320 if not lies else 8):
                entry.write(block)
        if lies:
            archive.infolist()[0].file_size = 1000
    return stream.getvalue()


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


# By the name of a file: how it is read, and what it holds.
BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "huge.jpg": ("photograph", jpeg),
    "huge.bmp": ("photograph", bmp),
    "huge.pgm": ("photograph", pgm),
    "huge.tif": ("photograph", tiff),
    "flat.png": ("photograph", lambda: png(30000)),
    "x-ray.png": ("x-ray", lambda: png(30000)),
    "mask.png": ("mask", lambda: png(30000)),
    "x-ray.dcm": ("x-ray", dicom),
    "lies.nii": ("CT", nifti),
    "lies.nii.gz": ("slice", lambda: gzip.compress(nifti(), mtime=0)),
    "volume.nii.gz": ("CT", lambda: packed(nifti())),
    "slice.nii.gz": ("slice", lambda: packed(nifti())),
    "picture.png.gz": ("photograph", lambda: packed(png(20))),
    "bundle.zip": ("zip", lambda: zipped(lies=False)),
    "lies.zip": ("zip", lambda: zipped(lies=True)),
    "deep.json": ("datalist", lambda: nested(200000)),
    "deep_list.json": ("COCO list", lambda: nested(200000)),
    "deep_card.json": ("card", lambda: nested(200000)),
}
QUICK = ("huge.jpg", "lies.nii")
MARKS = {name: [pytest.mark.attack] for name in BOMBS if name not in QUICK}


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, ())) for name in BOMBS], ids=list(BOMBS))
def test_a_bomb_is_refused_in_a_sentence_with_its_name(name: str, copies: Any, tmp_path: Path) -> None:
    kind, make = BOMBS[name]
    path = tmp_path / name
    path.write_bytes(make())
    path.with_suffix(".pt").write_bytes(b"")  # a card is of weights
    ending = copies.call("readings:read", kind, str(path), cwd=tmp_path, seconds=MOST_SECONDS, more_bytes=MOST_BYTES)
    assert (ending.code, ending.stopped) == (0, False), ending.said
    assert ending.peak_bytes < MOST_BYTES
    answer = ending.answer
    assert "shape" not in answer, answer
    assert not answer["memory"], answer["error"]
    assert answer["sentence"] is not None, answer["error"][:500]
    assert path.stem in answer["sentence"]
