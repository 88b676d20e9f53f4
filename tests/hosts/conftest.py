"""What the tests of hosts share: packed bundles, and studies in a folder."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from clinbundles.scripts.bundle import ROOT
from clinbundles.scripts.pack.run import packed_bundle


@pytest.fixture
def monai_deploy() -> None:
    """The SDK, without which the test is skipped; here and not in a module, which is collected in every run."""
    pytest.importorskip("monai.deploy.core", reason="no MONAI Deploy: the extra deploy brings it")


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Pack a bundle, once, and give the zip."""
    folder = tmp_path_factory.mktemp("dist")

    def pack(name: str) -> str:
        path = folder / f"{name}.zip"
        if not path.exists():
            path.write_bytes(packed_bundle(ROOT / "bundles" / name)[1])
        return str(path)

    return pack


@pytest.fixture
def as_study(tmp_path: Path) -> Callable[..., str]:
    """Lay files into a folder."""

    def lay(*files: Path) -> str:
        folder = tmp_path / "study"
        folder.mkdir(exist_ok=True)
        for file in files:
            shutil.copy(file, folder)
        return str(folder)

    return lay


@pytest.fixture(scope="session")
def as_capture() -> Callable[..., Path]:
    """Write a picture as a colour secondary capture of an endoscope."""

    def write(picture: Path, target: Path, **fields: object) -> Path:
        pixels = np.asarray(Image.open(picture).convert("RGB"))
        one = pydicom.Dataset()
        one.file_meta = pydicom.dataset.FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.1"
        one.StudyInstanceUID, one.SeriesInstanceUID = "1.2.3.4", "1.2.3.4.2"
        one.PatientName, one.PatientID, one.SpecificCharacterSet = "Müller^Jörg", "P1", "ISO_IR 100"
        one.Modality, one.ConversionType, one.SeriesNumber, one.InstanceNumber = "ES", "DI", 1, 1
        one.StudyDate, one.StudyTime = "20200101", "101010"
        one.Rows, one.Columns, one.SamplesPerPixel = *pixels.shape[:2], 3
        one.PhotometricInterpretation, one.PlanarConfiguration, one.PixelRepresentation = "RGB", 0, 0
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelData = 8, 8, 7, pixels.tobytes()
        for name, value in fields.items():
            setattr(one, name, value)
        target.parent.mkdir(parents=True, exist_ok=True)
        one.save_as(target, enforce_file_format=True)
        return target

    return write
