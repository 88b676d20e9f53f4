"""DICOM images: the fields that describe the image, checks of these and of the pixels, the stored values.

No field that names or describes the patient is parsed, and no message quotes one. No torch is needed here.
"""

from __future__ import annotations

import copy
import logging
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.uid import (
    JPEG2000,
    AllTransferSyntaxes,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSNearLossless,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from .codestream import Codestream, first_codestream, largest_codestream
from .limits import JPEG_2000_PIXEL_BYTES, check_file, check_picture, inflated_size
from .pydicom_api import deflated_part, encoding_of, first_frame, stored_values
from .rle import segment_sizes

_PALETTE = [f"{c}PaletteColorLookupTable{part}" for c in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")]
_NUMBERS = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
GREY = ("MONOCHROME1", "MONOCHROME2")
_YBR = ("YBR_FULL", "YBR_FULL_422")
_COLOURS = ("RGB", *_YBR, "YBR_ICT", "YBR_RCT")
_TARGA_KINDS = (b"\x02", b"\x03", b"\x0a", b"\x0b")
# Pixels are taken for arranged by plane if their neighbours in the file differ by less than this share of what those
# three samples apart do, and each third neighbour like any other. Of photographs by plane 0.45 is usual. By pixel,
# colours have 2 and more, and greys, whose neighbours of one pixel hardly differ, are never even.
_SMOOTH_BY_PLANE, _EVEN = 0.75, 0.4
_PART = 3 << 20  # samples
# Nothing that names or describes the patient is among the fields that are parsed.
_TAGS = [
    *("SOPClassUID", "Modality", "BodyPartExamined", "ViewPosition", "ViewCodeSequence", "PatientOrientation"),
    *("BurnedInAnnotation", "PresentationIntentType", "PhotometricInterpretation", "PresentationLUTShape"),
    *("Rows", "Columns", "SamplesPerPixel", "PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "NumberOfFrames", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope"),
    *("RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", *_PALETTE),
]


@contextmanager
def silent_pydicom() -> Iterator[None]:
    """Keep pydicom from warning and logging: its messages quote the values of fields."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)


def is_bare_dicom(path: Path) -> bool:
    """True if the file starts with a data element of group 0008 (or 0002), without preamble and prefix."""
    with path.open("rb") as stream:
        start = stream.read(8)
    # A Targa picture may start so too: the length of its title, no palette, its kind, and four zeros.
    is_targa = start[2:3] in _TARGA_KINDS and not any(start[3:])
    return start[:2] in (b"\x08\x00", b"\x02\x00") and start[3:4] == b"\x00" and not is_targa


def read_fields(path: Path, *, more: Sequence[str] = ()) -> pydicom.Dataset:
    """Read and parse those fields of a DICOM file that describe its image, and ``more`` by their keywords.

    The errors are raised without their cause: pydicom's own text may quote the value of a field.
    """
    check_file(path)
    check_deflated(path)
    try:
        dataset = pydicom.dcmread(path, specific_tags=[*_TAGS, *more], force=True)
    except Exception as error:  # damage of any kind
        raise ValueError(f"{path}: not a readable DICOM file ({type(error).__name__}).") from None
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
            if element.VR == "SQ":
                [list(item.iterall()) for item in element.value]
        except Exception as error:
            name = keyword_for_tag(tag)
            raise ValueError(f"{path}: {name} is malformed ({type(error).__name__}).") from None
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = encoding_of(dataset)
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    if dataset.file_meta.TransferSyntaxUID not in AllTransferSyntaxes:
        raise ValueError(f"{path}: TransferSyntaxUID is none that can be decoded.")
    return dataset


def check_deflated(path: Path) -> None:
    """Refuse a deflated DICOM file that inflates to more than the limit, for pydicom inflates it whole.

    Raises:
        ValueError: it does, or it is broken.
    """
    try:
        deflated = deflated_part(path)
        if deflated:
            inflated_size(path, deflated, wbits=-zlib.MAX_WBITS)
    except zlib.error:
        raise ValueError(f"{path}: not a readable DICOM file (its deflated part is broken).") from None


def is_grey(dataset: pydicom.Dataset) -> bool:
    """Tell whether a DICOM image has one sample a pixel that is its grey value."""
    return dataset.get("SamplesPerPixel", 1) == 1 and dataset.get("PhotometricInterpretation") in GREY


def read_image(path: Path) -> tuple[np.ndarray, pydicom.Dataset]:
    """Read the stored values of a DICOM image as :func:`decode_pixels` returns them, and its fields.

    Raises:
        ValueError: it is damaged, holds no single image of 8 to 16 bits, or what it says about itself is not so.
    """
    dataset = read_fields(path)
    check_pixels(path, dataset)
    return decode_pixels(path, dataset), dataset


def check_pixels(path: Path, dataset: pydicom.Dataset) -> None:
    """Refuse what holds no single image of 8 to 16 bits, or does not say which bits these are."""
    if not dataset.get("PixelData"):
        raise ValueError(f"{path}: the DICOM file has no PixelData, or ends within it.")
    if (frames := dataset.get("NumberOfFrames") or 1) != 1:
        raise ValueError(f"{path}: NumberOfFrames is {str(frames)[:16]}, expected one frame.")
    for name in _NUMBERS:
        if not isinstance(dataset.get(name), int):
            raise ValueError(f"{path}: {name} is missing or no number.")
    for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        if not isinstance(dataset.get(name), int | None):
            raise ValueError(f"{path}: {name} is no whole number.")
    kind, samples = str(dataset.get("PhotometricInterpretation", "")), dataset.SamplesPerPixel
    if samples != (1 if kind in (*GREY, "PALETTE COLOR") else 3):
        raise ValueError(f"{path}: PhotometricInterpretation {kind[:16]!r} with SamplesPerPixel {samples}.")
    bits, stored = dataset.BitsAllocated, dataset.BitsStored
    if bits not in (8, 16) or not 1 <= stored <= bits:
        raise ValueError(f"{path}: BitsAllocated {bits}, BitsStored {stored}: expected 8 to 16 bits.")
    if not stored <= dataset.HighBit + 1 <= bits:
        raise ValueError(f"{path}: HighBit is {dataset.HighBit}, with BitsStored {stored} of BitsAllocated {bits}.")
    if samples == 3:
        _check_colours(path, dataset)
    takes_more = samples * bits > 24 or dataset.file_meta.TransferSyntaxUID in JPEGTransferSyntaxes
    check_picture(path, dataset.Columns, dataset.Rows, pixel_bytes=12 if takes_more else 6)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        _check_end(path, dataset)
    else:
        _check_length(path, dataset)


def _check_colours(path: Path, dataset: pydicom.Dataset) -> None:
    kind, bits = str(dataset.PhotometricInterpretation), dataset.BitsAllocated
    if kind not in _COLOURS:
        raise ValueError(f"{path}: PhotometricInterpretation is {kind[:16]!r}, expected one of {', '.join(_COLOURS)}.")
    if kind not in ("RGB", *_YBR) and not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        raise ValueError(f"{path}: PhotometricInterpretation is {kind!r} in pixels that are not compressed.")
    if kind in _YBR and bits != 8:
        raise ValueError(f"{path}: PhotometricInterpretation is {kind!r} with BitsAllocated {bits}, expected 8.")
    if dataset.PixelRepresentation != 0 or (bits == 8 and dataset.BitsStored != 8):
        raise ValueError(
            f"{path}: BitsStored {dataset.BitsStored}, PixelRepresentation {dataset.PixelRepresentation} in a colour "
            f"image of {bits} bits, expected {bits} and 0."
        )
    if dataset.get("PlanarConfiguration") not in (None, 0, 1):
        raise ValueError(f"{path}: PlanarConfiguration is {str(dataset.PlanarConfiguration)[:16]}, expected 0 or 1.")


def _check_length(path: Path, dataset: pydicom.Dataset) -> None:
    size = len(dataset.PixelData)
    # Of 4 samples in YBR_FULL_422 two are shared by two pixels.
    samples = 2 if dataset.PhotometricInterpretation == "YBR_FULL_422" else dataset.SamplesPerPixel
    expected = dataset.Rows * dataset.Columns * samples * dataset.BitsAllocated // 8
    if size < expected:
        raise ValueError(f"{path}: PixelData is truncated, {size} of {expected} bytes.")
    if size >= 2 * expected:
        raise ValueError(f"{path}: PixelData has {size} bytes, expected {expected} by Rows and Columns.")


def _check_end(path: Path, dataset: pydicom.Dataset) -> None:
    """Refuse JPEG without its end: the decoder fills up what is missing, and the marker is never in coded pixels."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes) and b"\xff\xd9" not in dataset.PixelData[-64:]:
        raise ValueError(f"{path}: PixelData ({syntax.name}) is truncated.")


def decode_pixels(path: Path, dataset: pydicom.Dataset) -> np.ndarray:
    """Decode the stored values of a DICOM image, (H, W) or in colour (H, W, 3) as RGB.

    Raises:
        ValueError: they cannot be decoded, or are others than the fields say; their headers are compared before.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    plain = copy.deepcopy(dataset)  # pydicom's shallow copies share their fields
    if not syntax.is_encapsulated or syntax == RLELossless:
        plain.BitsStored, plain.HighBit = dataset.BitsAllocated, dataset.BitsAllocated - 1
        plain.PlanarConfiguration = dataset.get("PlanarConfiguration") or 0
    else:
        header = _header_of(path, dataset)
        _check_codestream(path, dataset, header)
        plain.PhotometricInterpretation = _coded_colours(dataset.PhotometricInterpretation, header)
        plain.BitsStored, plain.HighBit = header.bits, header.bits - 1
    if syntax == RLELossless:
        _check_segments(path, dataset)
    if syntax.is_encapsulated:
        for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):  # one frame needs none, and they may lie
            plain.pop(name, None)
        plain.PlanarConfiguration = 0  # JPEG and JPEG 2000 are by pixel, RLE by plane, whatever the field says
    try:
        values = stored_values(plain)
    except Exception as error:  # the decoder plug-ins raise types of their own
        raise ValueError(f"{path}: PixelData ({syntax.name}) cannot be decoded ({type(error).__name__}).") from None
    expected = (dataset.Rows, dataset.Columns, 3)[: 2 + (dataset.SamplesPerPixel == 3)]
    if values.shape != expected:
        raise ValueError(f"{path}: PixelData holds an array of shape {values.shape}, expected {expected}.")
    if syntax.is_encapsulated and syntax != RLELossless:
        _check_depth(path, dataset, values)
        return values
    if not syntax.is_encapsulated:
        _check_arrangement(path, dataset, values)
    return _without_other_bits(values, dataset)


def _header_of(path: Path, dataset: pydicom.Dataset) -> Codestream:
    """Read the header of the compressed image, and refuse pixel data that may hide a larger one."""
    header = first_codestream(dataset.PixelData)
    if header is None:
        name = dataset.file_meta.TransferSyntaxUID.name
        raise ValueError(f"{path}: PixelData ({name}) has no header of a compressed image.")
    if largest := largest_codestream(dataset.PixelData):  # of JPEG 2000, for JPEG stands behind the head of an item
        check_picture(path, largest.columns, largest.rows, pixel_bytes=JPEG_2000_PIXEL_BYTES)
    return header


def _check_segments(path: Path, dataset: pydicom.Dataset) -> None:
    """Refuse run lengths that decode to other sizes than the fields say: decoders do not stop there."""
    size = dataset.Rows * dataset.Columns
    expected = dataset.SamplesPerPixel * dataset.BitsAllocated // 8
    try:
        # A segment may be padded by a byte to an even length, and some writers pad by a run.
        sizes = segment_sizes(first_frame(dataset.PixelData), most=size + 128)
    except ValueError as error:
        raise ValueError(f"{path}: PixelData (RLE Lossless) cannot be decoded, {error}.") from None
    except Exception as error:  # damaged fragments
        raise ValueError(f"{path}: PixelData (RLE Lossless) cannot be decoded ({type(error).__name__}).") from None
    if len(sizes) != expected:
        raise ValueError(f"{path}: PixelData has {len(sizes)} RLE segments, the fields of its pixels need {expected}.")
    for number, decoded in enumerate(sizes, 1):
        if not size <= decoded <= size + 128:
            relation = "fewer" if decoded < size else "more"
            raise ValueError(
                f"{path}: RLE segment {number} holds {relation} bytes than {size}, as Rows and Columns say."
            )


def _check_codestream(path: Path, dataset: pydicom.Dataset, header: Codestream) -> None:
    """Refuse fields that contradict the codestream, which decides."""
    if (header.columns, header.rows) != (dataset.Columns, dataset.Rows):
        raise ValueError(
            f"{path}: the compressed image has {header.columns}x{header.rows} px, Columns and Rows say "
            f"{dataset.Columns}x{dataset.Rows}."
        )
    if header.samples != dataset.SamplesPerPixel:
        raise ValueError(
            f"{path}: SamplesPerPixel is {dataset.SamplesPerPixel}, the compressed image has {header.samples}."
        )
    if header.bits > dataset.BitsAllocated or header.bits <= 8 < dataset.BitsStored:
        raise ValueError(f"{path}: BitsStored is {dataset.BitsStored}, the compressed image has {header.bits} bits.")
    if dataset.HighBit != dataset.BitsStored - 1 and header.bits != dataset.BitsStored:
        raise ValueError(
            f"{path}: HighBit is {dataset.HighBit} with BitsStored {dataset.BitsStored}, and the compressed image has "
            f"{header.bits} bits: which of them are the image is not said."
        )
    if dataset.PhotometricInterpretation in ("YBR_ICT", "YBR_RCT") and header.transforms is False:
        kind = dataset.PhotometricInterpretation
        raise ValueError(f"{path}: PhotometricInterpretation is {kind!r}, the compressed image has no such transform.")


def _coded_colours(kind: str, header: Codestream) -> str:
    """Correct the PhotometricInterpretation by which decoded pixels become RGB, where the codestream says otherwise."""
    if header.colours == "RGB" and kind in _YBR:
        return "RGB"
    return "YBR_FULL_422" if header.colours == "YBR" and kind == "RGB" else kind


def _check_depth(path: Path, dataset: pydicom.Dataset, values: np.ndarray) -> None:
    """Refuse decoded values that do not fit into BitsStored."""
    bits = dataset.BitsStored
    low, high = _stored_range(dataset)
    # Edges of an image that is compressed with loss overshoot.
    beyond = 2**bits // 8 if dataset.file_meta.TransferSyntaxUID in (JPEG2000, JPEGLSNearLossless) else 0
    if values.min() < low - beyond or values.max() > high + beyond:
        raise ValueError(
            f"{path}: BitsStored is {bits} and HighBit {dataset.HighBit}, the compressed image holds values "
            f"{values.min()} to {values.max()}."
        )


def _stored_range(dataset: pydicom.Dataset) -> tuple[int, int]:
    """Return the lowest and the highest number that BitsStored can hold."""
    bits = dataset.BitsStored
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**bits - 1)


def _check_arrangement(path: Path, dataset: pydicom.Dataset, values: np.ndarray) -> None:
    """Refuse colours said to be by pixel, or not said how, that are arranged by plane as their neighbours tell."""
    kind, arrangement = dataset.PhotometricInterpretation, dataset.get("PlanarConfiguration")
    if arrangement == 1 or len(values.reshape(-1)) == 3:
        return
    if kind == "RGB":
        samples = values.reshape(-1)
    elif kind == "YBR_FULL" and dataset.file_meta.TransferSyntaxUID.is_little_endian:
        samples = np.frombuffer(dataset.PixelData, np.uint8, count=values.size)
    else:
        return
    # The last three samples have no neighbours to compare; in parts, for int32 takes four times the memory.
    sums, n_pixels = np.zeros(4), len(samples) // 3 - 1
    for start in range(0, 3 * n_pixels, _PART):
        part = samples[start : min(start + _PART, 3 * n_pixels) + 3].astype(np.int32)
        sums[:3] += np.abs(np.diff(part))[:-2].reshape(-1, 3).sum(axis=0)
        sums[3] += np.abs(part[3:] - part[:-3]).sum()
    thirds, by_pixel = sums[:3] / n_pixels, sums[3] / (3 * n_pixels)
    by_plane = thirds.mean()
    if by_plane < _SMOOTH_BY_PLANE * by_pixel and np.ptp(thirds) < _EVEN * thirds.mean():
        said = "missing, which means 0" if arrangement is None else "0"
        raise ValueError(f"{path}: PlanarConfiguration is {said}, but the pixels look arranged by plane, which is 1.")


def _without_other_bits(values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Take BitsStored bits, up to HighBit, of all that are allocated; padding may have a number beyond these."""
    bits, shift = dataset.BitsStored, dataset.HighBit + 1 - dataset.BitsStored
    unused = dataset.BitsAllocated - bits
    if not unused:
        return values
    low, high = _stored_range(dataset)
    if not shift and values.dtype.isnative and low <= values.min() and values.max() <= high:
        return values
    # To the left, and back: this clears what is above, and repeats the sign.
    stored = (values << (unused - shift)) >> unused
    padding = padding_of(values, dataset)
    return stored if padding is None or shift else np.where(padding, values, stored)


def padding_of(values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray | None:
    """Return where stored values are padding (PS3.3 C.7.5.1.1.2), bool of their shape, or None without any."""
    first, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if first is None or not is_grey(dataset):
        return None
    low, high = sorted(_in_type(number, values.dtype) for number in (first, first if limit is None else limit))
    return (values >= low) & (values <= high)


def _in_type(number: int, kind: np.dtype) -> int:
    """Find the one of the numbers with the same 16 or 8 bits that a type can hold; ``number`` where it is none."""
    unsigned = number % 2**16
    numbers = [unsigned, unsigned - 2**16]
    if kind.itemsize == 1:
        numbers += [n + shift for n in numbers if -128 <= n <= 255 for shift in (-256, 256)]
    return next((n for n in numbers if np.iinfo(kind).min <= n <= np.iinfo(kind).max), number)
