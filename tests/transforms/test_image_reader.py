from pathlib import Path

import numpy as np
import pydicom
import pytest
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from clinbundles.transforms.image_reader import BinaryMaskReader, RGBImageReader

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
