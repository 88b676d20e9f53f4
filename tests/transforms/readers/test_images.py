import gzip
import io
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from clinbundles.transforms.readers.images import BinaryMaskReader, RGBImageReader

WIDE = np.zeros((4, 6, 3), dtype=np.uint8)
WIDE[0] = (255, 0, 0)  # the top row is red


def write_secondary_capture(path: Path, pixels: np.ndarray, *, planar: int = 0, **fields: object) -> Path:
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    dataset.Modality, dataset.PatientName = "ES", "Doe^Jane"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
    dataset.PlanarConfiguration = planar
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = (np.moveaxis(pixels, -1, 0) if planar else pixels).tobytes()
    for name, value in fields.items():
        setattr(dataset, name, value)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_every_colour_mode_reads_as_rgb_with_rows_first(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(WIDE).convert(mode).save(path)
    np.testing.assert_array_equal(RGBImageReader().read(path), WIDE)


def test_a_grey_image_has_three_equal_channels(tmp_path: Path) -> None:
    Image.fromarray(WIDE[..., 0]).save(tmp_path / "a.png")
    image = RGBImageReader().read(tmp_path / "a.png")
    assert (image == WIDE[..., :1]).all()


@pytest.mark.parametrize("planar", [0, 1])
def test_a_dicom_secondary_capture_reads_as_the_same_array_as_a_png(tmp_path: Path, planar: int) -> None:
    path = write_secondary_capture(tmp_path / "no_suffix", WIDE, planar=planar)
    np.testing.assert_array_equal(RGBImageReader().read(path), WIDE)


def test_load_imaged_gives_height_before_width_and_keeps_the_file_name(tmp_path: Path) -> None:
    Image.fromarray(WIDE).save(tmp_path / "a.png")
    load = Compose([LoadImaged("image", reader=RGBImageReader()), EnsureChannelFirstd("image")])
    image = load({"image": str(tmp_path / "a.png")})["image"]
    assert image.shape == (3, 4, 6)
    assert image[0, 0].eq(255).all()
    assert Path(image.meta["filename_or_obj"]).name == "a.png"


def test_a_jpeg_mask_is_cut_at_half_and_a_0_1_mask_is_taken_as_it_is(tmp_path: Path) -> None:
    values = np.array([[0, 3, 127], [128, 250, 255]], dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "grey.png")
    Image.fromarray((values > 127).astype(np.uint8)).save(tmp_path / "labels.png")
    Image.fromarray(values > 127).save(tmp_path / "bits.png")
    for name in ("grey", "labels", "bits"):
        np.testing.assert_array_equal(BinaryMaskReader().read(tmp_path / f"{name}.png"), values > 127)


def test_every_bad_file_is_named_with_its_fault(tmp_path: Path) -> None:
    Image.fromarray(WIDE).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-100])
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    write_secondary_capture(tmp_path / "movie.dcm", WIDE, NumberOfFrames=2)
    write_secondary_capture(tmp_path / "grey.dcm", WIDE, SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2")
    no_pixels = pydicom.dcmread(write_secondary_capture(tmp_path / "empty.dcm", WIDE))
    del no_pixels.PixelData
    no_pixels.save_as(tmp_path / "empty.dcm")
    faults = {
        "cut.jpg": "not a readable image",
        "text.png": "not a readable image",
        "deep.png": "deeper than 8 bits",
        "movie.dcm": "NumberOfFrames is 2",
        "grey.dcm": "MONOCHROME2",
        "empty.dcm": "no PixelData",
    }
    for name, fault in faults.items():
        with pytest.raises(ValueError, match=fault) as caught:
            RGBImageReader().read(tmp_path / name)
        assert name in str(caught.value)
        assert "Doe" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        RGBImageReader().read(tmp_path / "absent.png")


def gzipped(path: Path, image: Image.Image, kind: str) -> Path:
    stream = io.BytesIO()
    image.save(stream, format=kind)
    path.write_bytes(gzip.compress(stream.getvalue()))
    return path


def write_grey_dicom(path: Path, values: np.ndarray, **fields: object) -> Path:
    """Grey DICOM of uint16 or int16 values (H, W)."""
    grey = {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 8 * values.itemsize}
    depth = {"BitsStored": 8 * values.itemsize, "HighBit": 8 * values.itemsize - 1}
    signed = {"PixelRepresentation": int(values.dtype.kind == "i"), "PixelData": values.tobytes()}
    return write_secondary_capture(path, values, **(grey | depth | signed | fields))


def test_a_compressed_image_and_a_gif_read_as_the_same_array_as_a_png(tmp_path: Path) -> None:
    image = Image.fromarray(WIDE)
    for name, kind in (("a.ppm.gz", "PPM"), ("b.png.gz", "PNG"), ("c.tif.gz", "TIFF")):
        np.testing.assert_array_equal(RGBImageReader().read(gzipped(tmp_path / name, image, kind)), WIDE)
    image.save(tmp_path / "d.gif")
    np.testing.assert_array_equal(RGBImageReader().read(tmp_path / "d.gif"), WIDE)
    mask = gzipped(tmp_path / "m.ppm.gz", Image.fromarray(WIDE[..., 0]), "PPM")
    np.testing.assert_array_equal(BinaryMaskReader().read(mask), WIDE[..., 0] > 0)


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 1), (6, 4, 1, 1)])
def test_a_grey_nifti_slice_is_laid_with_rows_first(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(WIDE[..., 0].T.reshape(shape), np.eye(4)), path)
    np.testing.assert_array_equal(RGBImageReader().read(path), np.repeat(WIDE[..., :1], 3, axis=-1))
    np.testing.assert_array_equal(BinaryMaskReader().read(path), WIDE[..., 0] > 0)


@pytest.mark.parametrize("shape", [(6, 4, 1, 3), (6, 4, 1, 1, 3)])
def test_a_colour_nifti_slice_keeps_its_channels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    nibabel.save(nibabel.Nifti1Image(WIDE.swapaxes(0, 1).reshape(shape), np.eye(4)), tmp_path / "a.nii")
    np.testing.assert_array_equal(RGBImageReader().read(tmp_path / "a.nii"), WIDE)


DEEP = np.array([[0, 1000, 1500, 2000, 3000, 65535]], dtype=np.uint16)
MAPPED = [0, 0, 128, 255, 255, 255]  # by the range 1000 to 2000


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.nii", "float.nii.gz", "float.tif", "a.dcm"])
def test_deep_images_are_mapped_by_the_range_and_refused_without(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    values = DEEP.astype(np.float32) if name.startswith("float") else DEEP
    if path.suffix == ".dcm":
        write_grey_dicom(path, values)
    elif ".nii" in name:
        nibabel.save(nibabel.Nifti1Image(values.T, np.eye(4)), path)
    else:
        Image.fromarray(values).save(path)
    with pytest.raises(ValueError, match=rf"{name}: .*intensity_range=\(low, high\)"):
        RGBImageReader().read(path)
    image = RGBImageReader(intensity_range=(1000, 2000)).read(path)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.repeat(np.array([MAPPED])[..., None], 3, axis=-1))


def test_the_refusal_tells_which_values_there_are(tmp_path: Path) -> None:
    Image.fromarray(DEEP[:, 1:-1]).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: pixel mode 'I;16' is deeper .* \(values 1000 to 3000\)"):
        RGBImageReader().read(tmp_path / "a.png")


def test_a_grey_dicom_is_rescaled_first_and_monochrome1_is_turned(tmp_path: Path) -> None:
    reader = RGBImageReader(intensity_range=(-100, 100))
    values = np.array([[924, 1024, 1124]], dtype=np.uint16)
    rescale = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    plain = reader.read(write_grey_dicom(tmp_path / "a.dcm", values, **rescale))
    assert plain[0, :, 0].tolist() == [0, 128, 255]
    turned = reader.read(
        write_grey_dicom(tmp_path / "b.dcm", values, PhotometricInterpretation="MONOCHROME1", **rescale)
    )
    np.testing.assert_array_equal(turned, 255 - plain)


def test_images_of_8_bits_are_taken_as_they_are_beside_deep_ones(tmp_path: Path) -> None:
    reader = RGBImageReader(intensity_range=(0, 4095))
    Image.fromarray(WIDE).save(tmp_path / "a.png")
    np.testing.assert_array_equal(reader.read(tmp_path / "a.png"), WIDE)
    dicom = write_grey_dicom(tmp_path / "a.dcm", np.ascontiguousarray(WIDE[..., 0]))
    np.testing.assert_array_equal(reader.read(dicom)[..., 0], WIDE[..., 0])
    colour = write_secondary_capture(tmp_path / "b.dcm", WIDE)
    np.testing.assert_array_equal(reader.read(colour), WIDE)


def test_padding_is_black_and_a_modality_table_comes_before_the_range(tmp_path: Path) -> None:
    reader = RGBImageReader(intensity_range=(0, 200))
    values = np.array([[0, 50, 100, 65535]], dtype=np.uint16)
    padding = {"PixelPaddingValue": 65535, "PhotometricInterpretation": "MONOCHROME1"}
    assert reader.read(write_grey_dicom(tmp_path / "a.dcm", values, **padding))[0, :, 0].tolist() == [255, 191, 127, 0]
    table = pydicom.Dataset()
    table.add_new("LUTDescriptor", "US", [101, 0, 16])
    table.add_new("LUTData", "US", list(range(0, 202, 2)))
    image = reader.read(write_grey_dicom(tmp_path / "b.dcm", values, ModalityLUTSequence=[table]))
    assert image[0, :, 0].tolist() == [0, 128, 255, 255]


def test_a_dicom_without_preamble_is_read(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(write_secondary_capture(tmp_path / "a.dcm", WIDE))
    del dataset.file_meta
    dataset.preamble = None
    dataset.save_as(tmp_path / "bare", implicit_vr=False, little_endian=True, enforce_file_format=False)
    assert (tmp_path / "bare").read_bytes()[:2] == b"\x08\x00"
    np.testing.assert_array_equal(RGBImageReader().read(tmp_path / "bare"), WIDE)


@pytest.mark.parametrize("title", [b"", b"ab", b"abcdefgh"])
def test_a_targa_picture_is_not_taken_for_dicom_by_the_length_of_its_title(tmp_path: Path, title: bytes) -> None:
    for compression in (None, "tga_rle"):
        Image.fromarray(WIDE).save(tmp_path / "a.tga", id_section=title, compression=compression)
        with pytest.raises(ValueError, match="no known format"):  # nor for anything else: it carries no mark
            RGBImageReader().read(tmp_path / "a.tga")


def test_no_message_of_a_damaged_dicom_quotes_the_patient(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = write_secondary_capture(tmp_path / "a.dcm", WIDE, RescaleSlope="12345678", PatientID="ID-4711")
    for old, new in ((b"12345678", b"Doe^Jane"), (b"ID-4711 ", b"\xff\xfeZq\\\x00\x01 ")):
        content = path.read_bytes()
        assert content.count(old) == 1
        (tmp_path / "bad.dcm").write_bytes(content.replace(old, new))
        np.testing.assert_array_equal(RGBImageReader().read(tmp_path / "bad.dcm"), WIDE)
    grey = write_grey_dicom(tmp_path / "grey.dcm", DEEP, RescaleSlope="12345678")
    grey.write_bytes(grey.read_bytes().replace(b"12345678", b"Doe^Jane"))
    with pytest.raises(ValueError, match=r"grey\.dcm: RescaleSlope is no number\.$"):
        RGBImageReader(intensity_range=(0, 1)).read(grey)
    assert not recwarn.list


@pytest.mark.parametrize("bad", [(1,), (2, 1), (0, float("nan")), "0-255", 5, ("a", "b")])
def test_a_range_that_is_none_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match=r"intensity_range is .*expected two numbers"):
        RGBImageReader(intensity_range=bad)  # type: ignore[arg-type]


def test_volumes_films_and_broken_files_are_named(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((6, 4, 3), np.uint8), np.eye(4)), tmp_path / "volume.nii")
    nibabel.save(nibabel.Nifti1Image(np.full((6, 4), np.nan, np.float32), np.eye(4)), tmp_path / "nan.nii")
    nibabel.save(nibabel.Nifti1Image(np.full((6, 4), 0.5, np.float32), np.eye(4)), tmp_path / "half.nii")
    frames = [Image.new("L", (4, 4), grey) for grey in (0, 255)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "broken.nii").write_text("no image")
    (tmp_path / "broken.nii.gz").write_bytes(gzip.compress(b"no image")[:-9])
    whole = gzipped(tmp_path / "whole.ppm.gz", Image.fromarray(WIDE), "PPM").read_bytes()
    (tmp_path / "cut.ppm.gz").write_bytes(whole[:-12])
    (tmp_path / "empty.png").touch()
    reader = RGBImageReader(intensity_range=(0, 1))
    for name, fault in {
        "volume.nii": r"NIfTI of shape \(6, 4, 3\), expected one slice",
        "nan.nii": "not finite",
        "film.gif": "a GIF of 2 frames",
        "broken.nii": "not a readable NIfTI",
        "broken.nii.gz": "not a readable NIfTI",
        "cut.ppm.gz": "not a readable image",
        "empty.png": "not a readable image",
    }.items():
        with pytest.raises(ValueError, match=rf"{name}: .*{fault}"):
            reader.read(tmp_path / name)
    with pytest.raises(ValueError, match=r"half\.nii: a NIfTI mask holds"):
        BinaryMaskReader().read(tmp_path / "half.nii")


def test_an_image_without_pixels_is_named(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((6, 0), np.uint8), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(ValueError, match=r"a\.nii: an image of 6x0 px is empty"):
        RGBImageReader().read(tmp_path / "a.nii")


def test_a_stack_is_refused_and_of_a_pyramid_the_first_level_is_read(tmp_path: Path) -> None:
    pixels = np.arange(64 * 48, dtype=np.uint8).reshape(64, 48)
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([pixels, pixels, pixels]), photometric="minisblack")
    with pytest.raises(ValueError, match=r"stack\.tif: .*a TIFF of 3 planes"):
        RGBImageReader().read(tmp_path / "stack.tif")
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as writer:
        for step in (1, 2, 4):
            writer.write(pixels[::step, ::step], photometric="minisblack", subfiletype=int(step > 1))
    assert (np.asarray(RGBImageReader().read(tmp_path / "pyramid.tif"))[..., 0] == pixels).all()


def test_deep_colours_are_mapped_by_the_range_and_white_as_zero_is_turned(tmp_path: Path) -> None:
    deep = np.array([[[0, 1000, 4095], [4095, 0, 2000]]], dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb")
    tifffile.imwrite(tmp_path / "white.tif", 4095 - deep[..., 1], photometric="miniswhite")
    reader = RGBImageReader(intensity_range=(0, 4095))
    np.testing.assert_array_equal(reader.read(tmp_path / "a.tif"), np.rint(deep * (255 / 4095)))
    np.testing.assert_array_equal(reader.read(tmp_path / "white.tif")[..., 0], np.rint(deep[..., 1] * (255 / 4095)))
    with pytest.raises(ValueError, match=r"a\.tif: uint16 is deeper than 8 bits a channel \(values 0 to 4095\)"):
        RGBImageReader().read(tmp_path / "a.tif")
