"""DICOM in colour, as the reader of colour images reads it."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import JPEG2000, ExplicitVRBigEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from clinbundles.transforms.readers.images import RGBImageReader

ROWS, COLUMNS = np.mgrid[:48, :64]
# Smooth, with a texture, and other in each channel, as a photograph is.
PHOTOGRAPH = np.stack(
    [
        200 - ROWS + 8 * np.sin(COLUMNS / 3),
        60 + COLUMNS + 8 * np.sin(COLUMNS / 4 + ROWS / 5),
        30 + ROWS + COLUMNS / 2 + 8 * np.sin(ROWS / 3),
    ],
    axis=-1,
)
PHOTOGRAPH = PHOTOGRAPH.round().astype(np.uint8)
GREY = np.repeat(PHOTOGRAPH[..., 1:2], 3, axis=-1)


def by_plane(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(values, -1, 0)).reshape(values.shape)


@pytest.fixture
def read(tmp_path: Path, write_dicom: Callable) -> Callable[..., np.ndarray]:
    """Reader, as a colour image, of a DICOM file that is made of stored values and fields."""

    def read(values: np.ndarray, *, reader: RGBImageReader | None = None, **fields: object) -> np.ndarray:
        return (reader or RGBImageReader()).read(write_dicom(tmp_path / "a.dcm", values, **fields))

    return read


@pytest.mark.parametrize("image", [PHOTOGRAPH, GREY, GREY[:1, :2], np.zeros((1, 1, 3), np.uint8)])
def test_pixels_without_a_said_arrangement_are_by_pixel(read: Callable, image: np.ndarray) -> None:
    np.testing.assert_array_equal(read(image, PlanarConfiguration=None), image)


@pytest.mark.parametrize("image", [PHOTOGRAPH, GREY])
def test_planes_are_read_where_the_file_says_so_and_refused_where_it_does_not(
    read: Callable, image: np.ndarray
) -> None:
    np.testing.assert_array_equal(read(by_plane(image), PlanarConfiguration=1), image)
    for said in (None, 0):
        with pytest.raises(ValueError, match=r"a\.dcm: PlanarConfiguration is .*look arranged by plane, which is 1\."):
            read(by_plane(image), PlanarConfiguration=said)
    deep = image.astype(">u2") * 257
    with pytest.raises(ValueError, match="look arranged by plane"):
        read(by_plane(deep), PlanarConfiguration=None, syntax=ExplicitVRBigEndian)


def test_noise_flat_areas_and_stripes_by_pixel_are_not_taken_for_planes(read: Callable) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    flat = np.full((48, 64, 3), (200, 30, 40), np.uint8)
    stripes = GREY // 64 * 64
    for image in (noise, flat, stripes, stripes[:, :, [0, 0, 0]].swapaxes(0, 1)):
        np.testing.assert_array_equal(read(np.ascontiguousarray(image), PlanarConfiguration=None), image)


@pytest.mark.parametrize("said", [0, 1, None])
def test_the_arrangement_of_compressed_pixels_is_that_of_the_coding(
    read: Callable, chest_dataset: Callable, said: int | None
) -> None:
    for syntax in (RLELossless, JPEG2000Lossless):
        dataset = chest_dataset(PHOTOGRAPH)
        dataset.compress(syntax)
        fields = {"PhotometricInterpretation": dataset.PhotometricInterpretation, "PlanarConfiguration": said}
        image = read(PHOTOGRAPH, syntax=syntax, PixelData=dataset.PixelData, **fields)
        np.testing.assert_array_equal(image, PHOTOGRAPH)


def test_luminance_and_chroma_become_rgb(read: Callable) -> None:
    ybr = np.asarray(Image.fromarray(PHOTOGRAPH).convert("YCbCr"))
    np.testing.assert_allclose(read(ybr, PhotometricInterpretation="YBR_FULL"), PHOTOGRAPH.astype(int), atol=3)
    pairs = ybr.reshape(48, 32, 2, 3)
    halved = np.concatenate([pairs[..., 0], pairs[:, :, 0, 1:]], axis=-1)  # Y Y Cb Cr
    fields = {"PhotometricInterpretation": "YBR_FULL_422", "PixelData": halved.tobytes()}
    np.testing.assert_allclose(read(PHOTOGRAPH, **fields), PHOTOGRAPH.astype(int), atol=8)
    with pytest.raises(ValueError, match="PixelData is truncated, 6000 of 6144 bytes"):
        read(PHOTOGRAPH, **fields | {"PixelData": halved.tobytes()[:6000]})


@pytest.mark.parametrize("kind", ["YBR_RCT", "YBR_ICT", "RGB", "YBR_FULL"])
def test_the_transform_of_jpeg_2000_is_undone_once(read: Callable, kind: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(PHOTOGRAPH).save(stream, "JPEG2000", mct=1, no_jp2=True, irreversible=kind == "YBR_ICT")
    pixels = pydicom.encaps.encapsulate([stream.getvalue()])
    image = read(PHOTOGRAPH, syntax=JPEG2000, PixelData=pixels, PhotometricInterpretation=kind)
    np.testing.assert_allclose(image, PHOTOGRAPH.astype(int), atol=2)


@pytest.mark.parametrize("kind", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("keep_rgb", [False, True])
def test_the_colours_of_a_jpeg_are_those_of_its_markers(read: Callable, kind: str, keep_rgb: bool) -> None:
    stream = io.BytesIO()
    Image.fromarray(PHOTOGRAPH).save(stream, "JPEG", quality=98, subsampling=0, keep_rgb=keep_rgb)
    pixels = pydicom.encaps.encapsulate([stream.getvalue()])
    image = read(PHOTOGRAPH, syntax=JPEGBaseline8Bit, PixelData=pixels, PhotometricInterpretation=kind)
    assert np.abs(image.astype(int) - PHOTOGRAPH).mean() < 2


def test_a_palette_becomes_its_colours(read: Callable) -> None:
    index = np.arange(256, dtype=np.uint8).reshape(16, 16)
    fields: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for k, colour in enumerate(("Red", "Green", "Blue")):
        fields[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        fields[f"{colour}PaletteColorLookupTableData"] = (np.roll(np.arange(256), k * 50) * 257).astype("<u2").tobytes()
    image = read(index, **fields)
    np.testing.assert_array_equal(image, np.stack([np.roll(np.arange(256), k * 50)[index] for k in range(3)], axis=-1))


def test_colours_of_16_bits_are_read_by_the_range_and_refused_without(read: Callable) -> None:
    deep = PHOTOGRAPH.astype(np.uint16) * 16 + 100
    with pytest.raises(ValueError, match=r"colour DICOM is deeper than 8 bits .*give intensity_range=\(low, high\)"):
        read(deep, BitsStored=12)
    reader = RGBImageReader(intensity_range=(100, 100 + 16 * 255))
    np.testing.assert_array_equal(read(deep, reader=reader, BitsStored=12), PHOTOGRAPH)


@pytest.mark.parametrize(
    ("fault", "fields"),
    [
        ("PhotometricInterpretation is 'HSV', expected one of RGB", {"PhotometricInterpretation": "HSV"}),
        ("'YBR_PARTIAL_420', expected", {"PhotometricInterpretation": "YBR_PARTIAL_420"}),
        ("'YBR_RCT' in pixels that are not compressed", {"PhotometricInterpretation": "YBR_RCT"}),
        ("BitsStored 7, PixelRepresentation 0 in a colour image of 8 bits", {"BitsStored": 7}),
        ("BitsStored 8, PixelRepresentation 1 in a colour image of 8 bits", {"PixelRepresentation": 1}),
        ("PlanarConfiguration is 2, expected 0 or 1", {"PlanarConfiguration": 2}),
    ],
)
def test_colours_that_are_not_known_are_refused_by_name(read: Callable, fault: str, fields: dict) -> None:
    with pytest.raises(ValueError, match=fault):
        read(PHOTOGRAPH, **fields)


def test_luminance_and_chroma_of_16_bits_are_refused(read: Callable) -> None:
    with pytest.raises(ValueError, match="'YBR_FULL' with BitsAllocated 16, expected 8"):
        read(PHOTOGRAPH.astype(np.uint16), PhotometricInterpretation="YBR_FULL")
