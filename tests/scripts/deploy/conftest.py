"""Instances of a study, and a bundle that needs no weights, for the tests of what surrounds an application."""

from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from clinbundles.scripts.deploy.inference import Bundle


@pytest.fixture
def instance() -> Callable[..., pydicom.Dataset]:
    """Make an instance without pixels: a chest X-ray of 40 x 60 px, with ``fields`` of it; None takes one away."""

    def make(**fields: object) -> pydicom.Dataset:
        one = pydicom.Dataset()
        one.file_meta = pydicom.dataset.FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID, one.SOPInstanceUID = ComputedRadiographyImageStorage, "1.2.3.1"
        one.StudyInstanceUID, one.SeriesInstanceUID = "1.2.3", "1.2.3.9"
        one.PatientName, one.PatientID, one.PatientBirthDate = "Doe^Jane", "P1", "19700101"
        one.StudyDate, one.InstitutionName, one.Modality = "20200101", "General Hospital", "CR"
        one.PhotometricInterpretation, one.Rows, one.Columns, one.SamplesPerPixel = "MONOCHROME2", 40, 60, 1
        one.BitsAllocated = one.BitsStored = 8
        one.HighBit, one.PixelRepresentation, one.SeriesNumber, one.InstanceNumber = 7, 0, 1, 1
        for name, value in fields.items():
            if value is None:
                one.pop(name, None)
            else:
                setattr(one, name, value)
        return one

    return make


@pytest.fixture
def as_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """Make a bundle with the named segments of a label map, or classes with ``type="probabilities"``."""

    def make(*names: str, type: str = "image", format: str = "segmentation") -> Bundle:
        prediction = {"type": type, "format": format, "channel_def": dict(enumerate(names))}
        data = {"inputs": {"image": {"format": "magnitude"}}, "outputs": {"pred": prediction}}
        metadata = {"version": "0.1.0", "task": "", "network_data_format": data}
        return Bundle(tmp_path / "lungs", metadata, "0123456789abcdef" * 4)

    return make
