from collections.abc import Callable

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

RAMP = np.tile(np.linspace(0, 255, 64).round().astype(np.uint8), (48, 1))  # dark left, bright right: 48 x 64
DEEP = np.tile(np.linspace(0, 4095, 64).round().astype(np.uint16), (48, 1))  # the same in 12 bits
PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")


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


@pytest.mark.parametrize(("declared", "used"), [(16, 12), (16, 10), (12, 16), (8, 12), (16, 8)])
def test_the_entries_of_a_table_say_what_is_white_where_its_descriptor_does_not(
    read_dicom_of: Callable, declared: int, used: int
) -> None:
    entries = np.rint(np.linspace(0.1, 1, 4096) * (2**used - 1)).astype(np.uint16)
    images = [
        read_dicom_of(DEEP, VOILUTSequence=[lookup_table(entries, first=0, bits=bits)]) for bits in (declared, used)
    ]
    np.testing.assert_array_equal(*images)
    assert close_to(images[0], 255 * (0.1 + 0.9 * DEEP / 4095))


def test_a_table_that_tops_out_above_half_of_its_range_is_shown_as_dark_as_it_is(read_dicom_of: Callable) -> None:
    entries = np.rint(np.linspace(0, 0.6, 4096) * 4095).astype(np.uint16)
    image = read_dicom_of(DEEP, VOILUTSequence=[lookup_table(entries, first=0, bits=12)])
    assert close_to(image, 0.6 * RAMP)


@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_table_for_negative_numbers_reads_the_same_with_its_first_number_signed_or_not(
    read_dicom_of: Callable, sequence: str, syntax: str
) -> None:
    values = DEEP.astype(np.int16) - 1024
    stored = values.astype(">i2" if syntax == ExplicitVRBigEndian else "<i2")
    for kind, first in (("SS", -1024), ("US", 64512)):
        item = lookup_table(np.arange(4095, -1, -1, dtype=np.uint16), first=0, bits=12)
        item.add_new("LUTDescriptor", kind, [4096, first, 12])
        image = read_dicom_of(stored, syntax=syntax, **{sequence: [item]})
        assert close_to(image, RAMP[:, ::-1])


def test_the_first_of_several_tables_is_applied(read_dicom_of: Callable) -> None:
    tables = [lookup_table(np.arange(4096)[::step], first=0, bits=12) for step in (-1, 1)]
    assert close_to(read_dicom_of(DEEP, VOILUTSequence=tables), RAMP[:, ::-1])
    assert close_to(read_dicom_of(DEEP, ModalityLUTSequence=tables), RAMP[:, ::-1])


def test_a_table_that_contradicts_its_descriptor_is_refused_by_name(read_dicom_of: Callable) -> None:
    item = lookup_table(np.arange(100), first=0, bits=12)
    item.add_new("LUTDescriptor", "US", [4096, 0, 12])
    with pytest.raises(
        ValueError, match=r"a\.dcm: the table of VOILUTSequence has 100 entries, its descriptor says 4096\."
    ):
        read_dicom_of(DEEP, VOILUTSequence=[item])
    del item.LUTDescriptor
    with pytest.raises(ValueError, match=r"a\.dcm: the table of ModalityLUTSequence is incomplete"):
        read_dicom_of(DEEP, ModalityLUTSequence=[item])


@pytest.mark.parametrize(
    "window",
    [
        {"WindowCenter": 2048, "WindowWidth": 0},
        {"WindowCenter": 2048, "WindowWidth": -100},
        {"WindowCenter": float("nan"), "WindowWidth": 100},
        {"WindowCenter": 2048, "WindowWidth": float("inf")},
        {"WindowCenter": 2048},
        {"WindowWidth": 2048},
        {"WindowCenter": "", "WindowWidth": ""},
        {"WindowCenter": ["", ""], "WindowWidth": ["", ""]},
        {"WindowCenter": [2048, 100], "WindowWidth": [0, ""]},
        {"WindowCenter": 2048, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"},
    ],
)
def test_without_a_valid_window_the_lowest_value_is_black_and_the_highest_white(
    read_dicom_of: Callable, window: dict
) -> None:
    np.testing.assert_array_equal(read_dicom_of(DEEP, **window), read_dicom_of(DEEP))


@pytest.mark.parametrize(
    "window",
    [
        {"WindowCenter": ["", 2048], "WindowWidth": ["", 1024]},
        {"WindowCenter": [100, 2048, 10], "WindowWidth": [0, 1024, 20]},
        {"WindowCenter": ["", 2048], "WindowWidth": [500, 1024]},
        {"WindowCenter": [2048, 7], "WindowWidth": 1024},
        {"WindowCenter": 2048, "WindowWidth": 1024, "VOILUTFunction": ""},
    ],
)
def test_the_first_valid_window_is_applied(read_dicom_of: Callable, window: dict) -> None:
    image = read_dicom_of(DEEP, **window)
    np.testing.assert_array_equal(image, read_dicom_of(DEEP, WindowCenter=2048, WindowWidth=1024))
    assert close_to(image, np.clip((DEEP - 2047.5) / 1023 + 0.5, 0, 1) * 255)


@pytest.mark.parametrize(("center", "width"), [(0.5, 0.9998), (0.25, 0.5), (0.5, 1)])
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", None])
def test_a_window_of_fractions_is_exact(
    read_dicom_of: Callable, center: float, width: float, function: str | None
) -> None:
    scale = {"RescaleSlope": round(1 / 4095, 10), "RescaleIntercept": 0, "VOILUTFunction": function}
    image = read_dicom_of(DEEP, BitsStored=12, WindowCenter=center, WindowWidth=width, **scale)
    assert close_to(image, np.clip((DEEP / 4095 - center) / width + 0.5, 0, 1) * 255)


def test_a_window_of_one_whole_number_is_a_threshold(read_dicom_of: Callable) -> None:
    image = read_dicom_of(DEEP, WindowCenter=2048, WindowWidth=1)
    np.testing.assert_array_equal(image, np.where(DEEP > 2047.5, 255, 0))


@pytest.mark.parametrize(("stored", "value"), [("<i2", 63536), ("<i2", -2000), ("<u2", -1), ("<u2", 65535)])
def test_padding_is_found_whatever_sign_its_value_has(read_dicom_of: Callable, stored: str, value: int) -> None:
    values = DEEP.astype(stored)
    values[:10] = np.array(value % 2**16, np.uint16).astype(stored)
    padding = {"PixelPaddingValue": ("US" if value >= 0 else "SS", value)}
    image = read_dicom_of(values, elements=padding, PhotometricInterpretation="MONOCHROME1")
    assert (image[:10] == 0).all()
    assert close_to(image[10:], RAMP[10:, ::-1])


@pytest.mark.parametrize(("value", "limit"), [(63536, 63546), (-2000, 63546), (-1990, -2000)])
def test_a_range_of_padding_is_found_whatever_sign_its_ends_have(
    read_dicom_of: Callable, value: int, limit: int
) -> None:
    values = DEEP.astype(np.int16)
    values[:10], values[:5] = -2000, -1990
    kinds = {name: ("US" if n >= 0 else "SS", n) for name, n in zip(PADDING, (value, limit), strict=True)}
    image = read_dicom_of(values, elements=kinds)
    assert (image[:10] == 0).all()
    assert close_to(image[10:], RAMP[10:])


def test_padding_of_signed_bytes_is_found_and_a_number_that_fits_nowhere_pads_nothing(read_dicom_of: Callable) -> None:
    values = (RAMP // 2).astype(np.int8)
    values[:10] = -1
    for kind, value in (("SS", -1), ("US", 255), ("US", 65535)):
        image = read_dicom_of(values, elements={"PixelPaddingValue": (kind, value)})
        assert (image[:10] == 0).all()
        assert close_to(image[10:], RAMP[10:], 2)
    assert close_to(read_dicom_of(RAMP, elements={"PixelPaddingValue": ("SS", -2000)}), RAMP)


def test_padding_beyond_the_stored_bits_is_padding_and_not_what_is_left_of_it(read_dicom_of: Callable) -> None:
    values = DEEP.copy()
    values[:10] = 63536  # with 12 bits stored
    image = read_dicom_of(values, BitsStored=12, elements={"PixelPaddingValue": ("US", 63536)})
    assert (image[:10] == 0).all()
    assert close_to(image[10:], RAMP[10:])


def test_junk_above_padding_does_not_hide_it(read_dicom_of: Callable) -> None:
    values = DEEP + 50
    values[:10] = 0
    values |= 0xF000 * (np.arange(64) % 2).astype(np.uint16)  # an overlay in the upper four bits
    values[:, -1] = 4095
    image = read_dicom_of(values, BitsStored=12, PixelPaddingValue=0)
    assert (image[:10, :-1] == 0).all()
    assert image[20, 0] == 0
    assert close_to(image[10:, :-2], (DEEP[10:, :-2].astype(int)) * (255 / 4045))


def palette(entries: np.ndarray, *, bits: int, first: int = 0) -> dict[str, object]:
    fields: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        fields[f"{colour}PaletteColorLookupTableDescriptor"] = [len(entries), first, bits]
        fields[f"{colour}PaletteColorLookupTableData"] = entries.tobytes()
    return fields


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", ["replicated", "high byte", "low byte", "bytes"])
def test_a_palette_is_scaled_by_its_entries_and_not_by_its_contrast(
    read_dicom_of: Callable, bits: int, kind: str
) -> None:
    greys = np.linspace(220, 40, 256).round().astype(np.uint8)
    words = greys.astype("<u2")
    entries = {"replicated": words * 257, "high byte": words * 256, "low byte": words, "bytes": greys}[kind]
    image = read_dicom_of(RAMP, **palette(entries, bits=bits))
    np.testing.assert_array_equal(image, greys[RAMP])


def test_a_palette_begins_at_its_first_number(read_dicom_of: Callable) -> None:
    greys = np.arange(56, 256, dtype=np.uint8)
    image = read_dicom_of(RAMP, **palette(greys, bits=8, first=56))
    np.testing.assert_array_equal(image, np.maximum(RAMP, 56))


def test_a_palette_without_its_data_is_refused_by_name(read_dicom_of: Callable) -> None:
    fields = palette(np.arange(256, dtype=np.uint8), bits=8) | {"GreenPaletteColorLookupTableData": None}
    with pytest.raises(ValueError, match=r"a\.dcm: GreenPaletteColorLookupTable is incomplete"):
        read_dicom_of(RAMP, **fields)
