"""Makers of DICOM images for the tests of readers."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from clinbundles.transforms.readers.chest_xray import ChestXRayReader


def dataset_of(
    values: np.ndarray,
    *,
    syntax: str = ExplicitVRLittleEndian,
    elements: Mapping[str, tuple[str, object]] | None = None,
    **fields: object,
) -> pydicom.Dataset:
    """A chest X-ray of stored values (H, W[, 3]), with ``fields`` in place of those that fit; None takes one away.

    ``elements`` are fields with their value representation.
    """
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = ComputedRadiographyImageStorage, "1.2.3.4"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "CR", "CHEST", "PA"
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Doe^Jane", "ID-4711", "19700203"
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.SamplesPerPixel = 3 if values.ndim == 3 else 1
    if values.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if values.ndim == 3 else "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * values.itemsize
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = values.tobytes()
    for name, value in {"HighBit": (fields.get("BitsStored") or 8 * values.itemsize) - 1, **fields}.items():
        setattr(dataset, name, value)
        if value is None:
            delattr(dataset, name)
    for name, (representation, value) in (elements or {}).items():
        dataset.add_new(name, representation, value)
    return dataset


@pytest.fixture(scope="session")
def chest_dataset() -> Callable[..., pydicom.Dataset]:
    """Maker of a DICOM data set from stored values."""
    return dataset_of


@pytest.fixture(scope="session")
def write_dicom() -> Callable[..., Path]:
    """Writer of a DICOM file from a path, stored values and fields."""

    def write(path: Path, values: np.ndarray, **fields: object) -> Path:
        dataset_of(values, **fields).save_as(path, enforce_file_format=True)
        return path

    return write


@pytest.fixture
def read_dicom_of(tmp_path: Path, write_dicom: Callable[..., Path]) -> Callable[..., np.ndarray]:
    """Reader, as a chest X-ray, of a DICOM file that is made of stored values and fields."""

    def read(values: np.ndarray, **fields: object) -> np.ndarray:
        return ChestXRayReader().read(write_dicom(tmp_path / "a.dcm", values, **fields))

    return read
