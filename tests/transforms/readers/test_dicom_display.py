from collections.abc import Callable

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

RAMP = np.tile(np.linspace(0, 255, 64).round().astype(np.uint8), (48, 1))  # dark left, bright right: 48 x 64
DEEP = np.tile(np.linspace(0, 4095, 64).round().astype(np.uint16), (48, 1))  # the same in 12 bits


def lookup_table(entries: np.ndarray, *, first: int, bits: int) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries.tolist())
    return item


def close_to(image: np.ndarray, expected: np.ndarray, tolerance: int = 1) -> bool:
    return image.dtype == np.uint8 and np.abs(image.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("shape", [None, "INVERSE"])
def test_monochrome1_is_inverted_once(shape: str | None, read_dicom_of: Callable) -> None:
    fields = {"PresentationLUTShape": shape} if shape else {}
    image = read_dicom_of(4095 - DEEP, BitsStored=12, PhotometricInterpretation="MONOCHROME1", **fields)
    assert close_to(image, RAMP)


def test_an_inverse_presentation_shape_alone_inverts_too_and_identity_does_not(read_dicom_of: Callable) -> None:
    assert close_to(read_dicom_of(4095 - DEEP, PresentationLUTShape="INVERSE"), RAMP)
    assert close_to(read_dicom_of(DEEP, PresentationLUTShape="IDENTITY"), RAMP)


def test_the_first_window_sets_black_and_white(read_dicom_of: Callable) -> None:
    image = read_dicom_of(DEEP, BitsStored=12, WindowCenter=[2048, 10], WindowWidth=[1024, 5])
    expected = np.clip((DEEP - 2047.5) / 1023 + 0.5, 0, 1) * 255  # PS3.3 C.11.2.1.2.1
    assert close_to(image, expected)


def test_an_exact_and_a_sigmoid_window_follow_their_equations(read_dicom_of: Callable) -> None:
    window = {"WindowCenter": 20, "WindowWidth": 8}
    values = (DEEP // 100).astype(np.uint16)
    exact = read_dicom_of(values, VOILUTFunction="LINEAR_EXACT", **window)
    assert close_to(exact, np.clip((values - 20.0) / 8 + 0.5, 0, 1) * 255)
    sigmoid = read_dicom_of(values, VOILUTFunction="SIGMOID", **window)
    assert close_to(sigmoid, 255 / (1 + np.exp(-4 * (values - 20.0) / 8)))


def test_the_window_is_in_rescaled_units(read_dicom_of: Callable) -> None:
    scale = {"RescaleSlope": 2, "RescaleIntercept": -100}
    image = read_dicom_of(DEEP, **scale, WindowCenter=3995, WindowWidth=8190)
    assert close_to(image, RAMP)
    assert close_to(read_dicom_of(DEEP, RescaleSlope=-1, RescaleIntercept=4095), RAMP[:, ::-1])


def test_a_modality_table_comes_before_the_window(read_dicom_of: Callable) -> None:
    table = lookup_table((np.arange(4096) // 2 + 7).astype(np.uint16), first=0, bits=16)
    image = read_dicom_of(DEEP, ModalityLUTSequence=[table], WindowCenter=7 + 1024, WindowWidth=2048)
    assert close_to(image, RAMP)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_table_of_values_of_interest_wins_over_the_window(bits: int, syntax: str, read_dicom_of: Callable) -> None:
    entries = np.rint(np.linspace(0, 1, 2048) ** 2 * (2**bits - 1)).astype(np.uint16)
    fields = {"VOILUTSequence": [lookup_table(entries, first=1000, bits=bits)], "WindowCenter": 1, "WindowWidth": 2}
    image = read_dicom_of(DEEP, syntax=syntax, **fields)
    expected = (np.clip(DEEP.astype(int) - 1000, 0, 2047) / 2047.0) ** 2 * 255
    assert close_to(image, expected)


def test_a_table_of_bytes_reads_like_one_of_words(read_dicom_of: Callable) -> None:
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", [256, 0, 8])
    item.add_new("LUTData", "OW", bytes(range(255, -1, -1)))
    assert close_to(read_dicom_of(RAMP, VOILUTSequence=[item]), 255 - RAMP)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_padding_is_black_and_sets_no_bounds(syntax: str, read_dicom_of: Callable) -> None:
    values = DEEP.astype(np.int16)
    values[:10] = -2000
    padding = {"PixelPaddingValue": -2000, "syntax": syntax}
    for kind, shown in (("MONOCHROME2", RAMP), ("MONOCHROME1", RAMP[:, ::-1])):
        image = read_dicom_of(values, **padding, PhotometricInterpretation=kind)
        assert (image[:10] == 0).all()
        assert close_to(image[10:], shown[10:])
    values[:5] = -1990
    image = read_dicom_of(values, **padding, PixelPaddingRangeLimit=-1980)
    assert (image[:10] == 0).all()
    assert close_to(image[10:], RAMP[10:])


def test_a_palette_of_greys_is_read(read_dicom_of: Callable) -> None:
    fields: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        fields[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        words = (np.arange(255, -1, -1) * 257).astype("<u2")
        fields[f"{colour}PaletteColorLookupTableData"] = words.tobytes()
    assert close_to(read_dicom_of(RAMP, **fields), 255 - RAMP)
