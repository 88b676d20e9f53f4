"""Pixels by pydicom 3 as they are, and by the way around it for 2.4, taken with what 3 keeps of 2.4."""

import importlib.util
import io
import sys
import warnings
from types import ModuleType, SimpleNamespace

import numpy as np
import pydicom
import pydicom.pixel_data_handlers.util
import pytest
from PIL import Image
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from clinbundles.transforms.readers import pydicom_api

RAMP = np.tile(np.linspace(0, 4095, 64).round().astype(np.uint16), (48, 1))
COLOUR = np.stack([RAMP // 16, RAMP[:, ::-1] // 16, np.full_like(RAMP, 90)], axis=-1).astype(np.uint8)


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module as it is where ``pydicom.pixels`` does not exist."""
    spec = importlib.util.spec_from_file_location("older_pydicom_api", pydicom_api.__file__)
    module = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        patch.setitem(sys.modules, "pydicom.pixels", None)
        spec.loader.exec_module(module)
    assert module.IS_OLDER
    assert not pydicom_api.IS_OLDER
    return module


def dataset_of(values: np.ndarray, *, syntax: str = ExplicitVRLittleEndian, **fields: object) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.3", "1.2.3.4"
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = (3, 0) if values.ndim == 3 else (1, None)
    dataset.PhotometricInterpretation = "RGB" if values.ndim == 3 else "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * values.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    dataset.PixelData = values.tobytes()
    for name, value in fields.items():
        setattr(dataset, name, value)
    return dataset


def compressed(values: np.ndarray, syntax: str) -> pydicom.Dataset:
    dataset = dataset_of(values)
    dataset.compress(syntax)
    return dataset


def jpeg() -> pydicom.Dataset:
    stream = io.BytesIO()
    Image.fromarray(COLOUR).save(stream, "JPEG", quality=95)
    content = pydicom.encaps.encapsulate([stream.getvalue()])
    return dataset_of(COLOUR, syntax=JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL_422", PixelData=content)


KINDS = {
    "grey": lambda: dataset_of(RAMP),
    "colour": lambda: dataset_of(COLOUR),
    "YBR": lambda: dataset_of(COLOUR, PhotometricInterpretation="YBR_FULL"),
    "RLE": lambda: compressed(RAMP, RLELossless),
    "JPEG 2000": lambda: compressed(RAMP, JPEG2000Lossless),
    "JPEG": jpeg,
}
HANDLERS = ("numpy", "numpy", "numpy", "rle", "pylibjpeg", "pylibjpeg")


class OlderDataset:
    """A dataset as pydicom 2.4 has it: decoded by a handler of one's choice, and colours left as they are stored."""

    def __init__(self, dataset: pydicom.Dataset) -> None:
        self.dataset, self.handler = dataset, ""

    def __getattr__(self, name: str) -> object:
        return getattr(self.dataset, name)

    def convert_pixel_data(self, handler: str) -> None:
        self.handler = handler

    @property
    def pixel_array(self) -> np.ndarray:
        assert self.handler
        return pydicom.pixels.pixel_array(self.dataset, raw=True)


@pytest.mark.parametrize(("kind", "handler"), list(zip(KINDS, HANDLERS, strict=True)))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_older_and_newer_pydicom_yield_the_same_pixels(kind: str, handler: str, older: ModuleType) -> None:
    values = pydicom_api.stored_values(KINDS[kind]())
    assert values.shape == (COLOUR if values.ndim == 3 else RAMP).shape
    assert values.dtype in (np.uint8, np.uint16)
    dataset = OlderDataset(KINDS[kind]())
    np.testing.assert_array_equal(older.stored_values(dataset), values)
    assert dataset.handler == handler


def test_pixels_without_loss_are_those_that_were_stored() -> None:
    for kind in ("grey", "RLE", "JPEG 2000"):
        np.testing.assert_array_equal(pydicom_api.stored_values(KINDS[kind]()), RAMP)


@pytest.mark.parametrize("encoding", [(True, True), (False, True), (False, False)])
def test_the_encoding_of_a_file_is_known_by_either_name(encoding: tuple[bool, bool]) -> None:
    implicit, little = encoding
    stream = io.BytesIO()
    dataset = pydicom.Dataset()
    dataset.Rows = 4
    pydicom.dcmwrite(stream, dataset, implicit_vr=implicit, little_endian=little)
    assert pydicom_api.encoding_of(pydicom.dcmread(stream, force=True)) == encoding
    assert pydicom_api.encoding_of(SimpleNamespace(read_implicit_vr=implicit, read_little_endian=little)) == encoding
