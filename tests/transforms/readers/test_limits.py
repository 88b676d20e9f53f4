import gzip
import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from clinbundles.transforms.readers.ct_volume import read_ct
from clinbundles.transforms.readers.images import RGBImageReader
from clinbundles.transforms.readers.limits import (
    TooLargeError,
    check_bytes,
    check_picture,
    gunzip,
    inflated_size,
    max_bytes,
)
from clinbundles.transforms.readers.pixel_size import pixel_size_um

SMALL = np.zeros((64, 64), dtype=np.uint8)


@pytest.fixture
def one_megabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINBUNDLES_MAX_IMAGE_MB", "1")


def read(path: Path) -> np.ndarray:
    return RGBImageReader(intensity_range=(0, 65535)).read(path)


def test_the_limit_is_320_megabytes_and_an_environment_variable_moves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLINBUNDLES_MAX_IMAGE_MB", raising=False)
    assert max_bytes() == 320_000_000
    monkeypatch.setenv("CLINBUNDLES_MAX_IMAGE_MB", "7")
    assert max_bytes() == 7_000_000
    check_bytes("a.png", 7_000_000, "an image")
    with pytest.raises(TooLargeError, match=r"^a\.png: an image counts 8 MB, .*CLINBUNDLES_MAX_IMAGE_MB to 8\.$"):
        check_bytes("a.png", 7_000_001, "an image")


@pytest.mark.parametrize("text", ["", "0", "-5", "1.5", "much"])
def test_a_limit_that_is_no_number_of_megabytes_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINBUNDLES_MAX_IMAGE_MB", text)
    with pytest.raises(ValueError, match=r"CLINBUNDLES_MAX_IMAGE_MB is .*expected a whole number"):
        max_bytes()


def test_a_pixel_counts_four_bytes_or_what_it_takes(one_megabyte: None) -> None:
    check_picture("a.png", 500, 500, pixel_bytes=1)
    with pytest.raises(TooLargeError, match="501x500 px counts 2 MB"):
        check_picture("a.png", 501, 500, pixel_bytes=1)
    with pytest.raises(TooLargeError):
        check_picture("a.png", 500, 500, pixel_bytes=6)


def test_inflated_bytes_are_counted_and_their_checksum_compared() -> None:
    deflated = zlib.compress(bytes(100_000))
    assert inflated_size(Path("a"), deflated) == 100_000
    with pytest.raises(zlib.error, match="incorrect data check"):
        inflated_size(Path("a"), deflated[:-1] + bytes([deflated[-1] ^ 1]))
    with pytest.raises(zlib.error, match="incomplete"):
        inflated_size(Path("a"), deflated[:-6])


def test_a_gzip_file_is_inflated_up_to_the_limit(tmp_path: Path, one_megabyte: None) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(1_000_000)))
    assert len(gunzip(tmp_path / "a.gz")) == 1_000_000
    (tmp_path / "b.gz").write_bytes(gzip.compress(bytes(1_000_001)))
    with pytest.raises(TooLargeError, match=r"b\.gz: inflates to more than the 1 MB"):
        gunzip(tmp_path / "b.gz")


def claiming(content: bytes, before: bytes, sizes: bytes, *, skip: int) -> bytes:
    """Let a header say another size: ``skip`` bytes behind the end of ``before``."""
    place = content.index(before) + len(before) + skip
    return content[:place] + sizes + content[place + len(sizes) :]


def jpeg_2000(width: int, height: int, kind: str) -> bytes:
    content = imagecodecs.jpeg2k_encode(SMALL.astype(np.uint16), codecformat=kind)
    if kind == "jp2":
        content = claiming(content, b"ihdr", struct.pack(">II", height, width), skip=0)
    content = claiming(content, b"\xff\x4f\xff\x51", struct.pack(">II", width, height), skip=4)
    return claiming(content, b"\xff\x4f\xff\x51", struct.pack(">II", width, height), skip=20)


def jpeg(width: int, height: int) -> bytes:
    content = imagecodecs.jpeg_encode(np.zeros((64, 64, 3), dtype=np.uint8))
    return claiming(content, b"\xff\xc0", struct.pack(">HH", height, width), skip=3)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def tiff(pixels: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


LARGE = np.zeros((800, 800), dtype=np.uint8)
PICTURES = {
    "bomb.png": saved(Image.fromarray(LARGE), "PNG"),
    "deep.png": imagecodecs.png_encode(np.zeros((450, 450, 3), dtype=np.uint16)),
    "claims.jpg": jpeg(60000, 60000),
    "claims.jp2": jpeg_2000(60000, 60000, "jp2"),
    "deflate.tif": tiff(LARGE, compression="zlib"),
    "lzw.tif": tiff(LARGE, compression="lzw"),
    "zstd.tif": tiff(LARGE.astype(np.uint32), compression="zstd"),
    "float.tif": tiff(np.zeros((300, 300), dtype=np.float32), compression="zlib"),
    "plain.tif": tiff(LARGE),
    "claims.gif": saved(Image.fromarray(LARGE), "GIF"),
    "claims.bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60000, 60000, 1, 24, *[0] * 6),
    "claims.ppm": b"P6 100000 100000 255\n" + bytes(100),
    "bomb.webp": saved(Image.fromarray(LARGE), "WEBP", lossless=True),
    "bomb.avif": saved(Image.fromarray(LARGE).convert("RGB"), "AVIF"),
    "bomb.png.gz": gzip.compress(bytes(2_000_000)),
    "long.bin": bytes(1_000_001),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_beyond_the_limit_is_refused_by_its_header(name: str, tmp_path: Path, one_megabyte: None) -> None:
    (tmp_path / name).write_bytes(PICTURES[name])
    with pytest.raises(TooLargeError, match=f"{name}: .*MB.*CLINBUNDLES_MAX_IMAGE_MB"):
        read(tmp_path / name)


def test_a_picture_up_to_the_limit_is_read_even_where_pillow_would_refuse_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    monkeypatch.setattr("clinbundles.transforms.readers.raster._PILLOWS_LIMIT", 1000)
    for kind in ("PNG", "TIFF"):
        (tmp_path / "a").write_bytes(saved(Image.fromarray(SMALL), kind))
        assert read(tmp_path / "a").shape == (64, 64, 3)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_a_strip_that_holds_more_than_its_page_is_refused(tmp_path: Path, one_megabyte: None) -> None:
    strips = {"zlib": zlib.compress(bytes(2_000_000)), "jpeg2000": jpeg_2000(60000, 60000, "j2k")}
    for compression, strip in strips.items():
        pixels = SMALL.astype(np.uint16) if compression == "jpeg2000" else SMALL
        content = bytearray(tiff(pixels, compression=compression, rowsperstrip=64))
        with tifffile.TiffFile(io.BytesIO(bytes(content))) as file:
            places = [file.pages.first.tags[name].offset for name in ("StripOffsets", "StripByteCounts")]
        for place, value in zip(places, (len(content), len(strip)), strict=True):
            content[place + 2 : place + 12] = struct.pack("<HII", 4, 1, value)
        (tmp_path / "a.tif").write_bytes(content + strip)
        with pytest.raises(TooLargeError, match=r"a\.tif: .*CLINBUNDLES_MAX_IMAGE_MB"):
            read(tmp_path / "a.tif")


def test_a_tiff_of_very_many_pages_is_refused_before_they_are_read(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for _ in range(100):
            writer.write(SMALL[:4, :4], contiguous=False)
    with pytest.raises(ValueError, match="a TIFF of 100 pages, expected one"):
        read(tmp_path / "a.tif")


def nifti(path: Path, shape: tuple[int, ...], kind: type, *, slope: float | None = None) -> Path:
    image = nibabel.Nifti1Image(np.zeros(shape, dtype=kind), np.eye(4))
    image.header.set_slope_inter(slope, 0 if slope else None)
    nibabel.save(image, path)
    return path


def test_a_nifti_file_beyond_the_limit_is_refused_before_its_voxels_are_read(
    tmp_path: Path, one_megabyte: None
) -> None:
    files = [
        nifti(tmp_path / "large.nii", (100, 100, 60), np.int16),
        nifti(tmp_path / "inflates.nii.gz", (100, 100, 60), np.int16),
        nifti(tmp_path / "scaled.nii.gz", (100, 100, 40), np.uint8, slope=0.5),
    ]
    for path in files:
        with pytest.raises(TooLargeError, match=f"{path.name}: .*CLINBUNDLES_MAX_IMAGE_MB"):
            read_ct(path)
    with pytest.raises(TooLargeError, match=r"slice\.nii: an image of 300x300 px"):
        read(nifti(tmp_path / "slice.nii", (300, 300, 1), np.float32))


def test_a_series_is_refused_at_the_slice_at_which_it_passes_the_limit(
    tmp_path: Path, write_ct_series: Callable[..., Path], chest_slice: Callable[..., np.ndarray], one_megabyte: None
) -> None:
    folder = write_ct_series(tmp_path / "series", np.stack([chest_slice(256)] * 9))
    with pytest.raises(TooLargeError, match=r"series: the series, up to slice 8 of 9, counts 2 MB"):
        read_ct(folder)


def dicom_of(chest_dataset: Callable, content: bytes, side: int, syntax: str) -> pydicom.Dataset:
    is_colour = syntax == JPEGBaseline8Bit
    pixels = np.zeros((64, 64, 3), dtype=np.uint8) if is_colour else SMALL.astype(np.uint16)
    fields = {"PhotometricInterpretation": "YBR_FULL_422"} if is_colour else {}
    return chest_dataset(pixels, syntax=syntax, Rows=side, Columns=side, PixelData=encapsulate([content]), **fields)


def jpeg_ls(side: int) -> bytes:
    content = imagecodecs.jpegls_encode(SMALL.astype(np.uint16))
    return claiming(content, b"\xff\xf7", struct.pack(">HH", side, side), skip=3)


@pytest.mark.parametrize(
    ("content", "side", "syntax", "fault"),
    [
        (jpeg(60000, 60000), 60000, JPEGBaseline8Bit, "60000x60000 px counts"),
        (jpeg(60000, 60000), 64, JPEGBaseline8Bit, "has 60000x60000 px, Columns and Rows say"),
        (jpeg_ls(60000), 60000, JPEGLSLossless, "60000x60000 px counts"),
        (jpeg_ls(60000), 64, JPEGLSLossless, "has 60000x60000 px, Columns and Rows say"),
        (jpeg_2000(60000, 60000, "j2k"), 60000, JPEG2000Lossless, "60000x60000 px counts"),
        # Another one hides behind it.
        (jpeg_2000(64, 64, "j2k") + jpeg_2000(60000, 60000, "j2k"), 64, JPEG2000Lossless, "60000x60000 px counts"),
        (bytes(1000), 64, JPEG2000Lossless, "has no header of a compressed image"),
    ],
)
def test_compressed_dicom_is_refused_by_its_headers(
    content: bytes, side: int, syntax: str, fault: str, tmp_path: Path, chest_dataset: Callable, one_megabyte: None
) -> None:
    dicom_of(chest_dataset, content, side, syntax).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(ValueError, match=rf"a\.dcm: .*{fault}"):
        read(tmp_path / "a.dcm")


def test_plain_dicom_is_refused_by_rows_and_columns(tmp_path: Path, write_dicom: Callable, one_megabyte: None) -> None:
    path = write_dicom(tmp_path / "a.dcm", SMALL, Rows=60000, Columns=60000)
    with pytest.raises(TooLargeError, match=r"a\.dcm: an image of 60000x60000 px"):
        read(path)


def rle_frame(*segments: bytes, offsets: tuple[int, ...] | None = None) -> bytes:
    places = offsets or tuple(64 + sum(map(len, segments[:k])) for k in range(len(segments)))
    return struct.pack("<16L", len(segments), *places, *[0] * (15 - len(places))) + b"".join(segments)


@pytest.mark.parametrize(
    ("frame", "side", "fault"),
    [
        (rle_frame(b"\x81\x00" * 32, b"\x81\x00" * 32), 300, "RLE segment 1 holds fewer bytes than 90000"),
        (rle_frame(b"\x81\x00" * 32, b"\x81\x00" * 9999), 64, "RLE segment 2 holds more bytes than 4096"),
        (rle_frame(b"\x81\x00" * 32), 64, "has 1 RLE segments, the fields of its pixels need 2"),
        (rle_frame(b"\x81\x00" * 32, b"\x81\x00" * 32, offsets=(4_000_000_000, 64)), 64, "outside the frame"),
        (rle_frame(b"\x81\x00" * 32, b"\x81\x00" * 32, offsets=(64, 2**31)), 64, "outside the frame"),
    ],
)
def test_run_lengths_that_lie_are_refused_before_they_are_decoded(
    frame: bytes, side: int, fault: str, tmp_path: Path, chest_dataset: Callable
) -> None:
    dicom_of(chest_dataset, frame, side, RLELossless).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(ValueError, match=rf"a\.dcm: .*{fault}"):
        read(tmp_path / "a.dcm")


def deflated_bomb(path: Path, chest_dataset: Callable, length: int) -> Path:
    """Write a deflated DICOM file of black pixels that inflates to more than ``length`` bytes."""
    chest_dataset(SMALL, syntax=DeflatedExplicitVRLittleEndian, PixelSpacing=[0.1, 0.1]).save_as(
        path, enforce_file_format=True
    )
    content = path.read_bytes()
    start = next(k for k in range(132, len(content)) if _inflates(content[k:]))
    head = zlib.decompress(content[start:], -zlib.MAX_WBITS)[: -SMALL.size - 4]
    deflater, zeros = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS), bytes(10_000_000)
    with path.open("wb") as stream:
        stream.write(content[:start] + deflater.compress(head + struct.pack("<I", length)))
        for _ in range(0, length, len(zeros)):
            stream.write(deflater.compress(zeros))
        stream.write(deflater.flush())
    return path


def _inflates(content: bytes) -> bool:
    try:
        return b"CHEST" in zlib.decompress(content, -zlib.MAX_WBITS)
    except zlib.error:
        return False


def test_a_deflated_dicom_file_is_inflated_up_to_the_limit_by_each_that_reads_it(
    tmp_path: Path, chest_dataset: Callable, one_megabyte: None
) -> None:
    path = deflated_bomb(tmp_path / "a.dcm", chest_dataset, 10_000_000)
    with pytest.raises(TooLargeError, match=r"a\.dcm: inflates to more than the 1 MB"):
        read(path)
    assert pixel_size_um(path) is None


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is counted in KiB on Linux alone")
def test_a_small_file_that_inflates_to_a_gigabyte_takes_no_memory(tmp_path: Path, chest_dataset: Callable) -> None:
    path = deflated_bomb(tmp_path / "a.dcm", chest_dataset, 1_000_000_000)
    assert path.stat().st_size < 2_000_000
    code = (
        "import resource, sys; from pathlib import Path; from clinbundles.transforms.readers.dicom import read_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_image(Path(sys.argv[1]))\n"
        "except ValueError as error: print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1000)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    sentence, megabytes = done.stdout.splitlines()
    assert "inflates to more than the 320 MB" in sentence
    assert int(megabytes) < 50
