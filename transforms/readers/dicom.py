"""DICOM images as on a display: the fields that describe the image, checks of its pixels, the pipeline of PS3.3.

No field that names or describes the patient is parsed, and no message quotes one. No torch is needed here.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.uid import (
    AllTransferSyntaxes,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from .pydicom_api import apply_windowing, encoding_of, stored_values

_PALETTE = [f"{c}PaletteColorLookupTable{part}" for c in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")]
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
        start = stream.read(4)
    return start[:2] in (b"\x08\x00", b"\x02\x00") and start[3:] == b"\x00"


def read_fields(path: Path, *, more: Sequence[str] = ()) -> pydicom.Dataset:
    """Read and parse those fields of a DICOM file that describe its image, and ``more`` by their keywords.

    The errors are raised without their cause: pydicom's own text may quote the value of a field.
    """
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


def check_pixels(path: Path, dataset: pydicom.Dataset) -> None:
    """Refuse what holds no single image of 8 to 16 bits."""
    if not dataset.get("PixelData"):
        raise ValueError(f"{path}: the DICOM file has no PixelData, or ends within it.")
    if (frames := dataset.get("NumberOfFrames") or 1) != 1:
        raise ValueError(f"{path}: NumberOfFrames is {str(frames)[:16]}, expected one frame.")
    for name in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored"):
        if not isinstance(dataset.get(name), int):
            raise ValueError(f"{path}: {name} is missing or no number.")
    kind, samples = str(dataset.get("PhotometricInterpretation", "")), dataset.SamplesPerPixel
    if samples != (1 if kind in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR") else 3):
        raise ValueError(f"{path}: PhotometricInterpretation {kind[:16]!r} with SamplesPerPixel {samples}.")
    bits = dataset.BitsAllocated
    if bits not in (8, 16) or not 1 <= dataset.BitsStored <= bits:
        raise ValueError(f"{path}: BitsAllocated {bits}, BitsStored {dataset.BitsStored}: expected 8 to 16 bits.")
    syntax, size = dataset.file_meta.TransferSyntaxUID, len(dataset.PixelData)
    # The decoder of these fills up what is missing; the marker of their end is never within the coded pixels.
    if syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes) and b"\xff\xd9" not in dataset.PixelData[-64:]:
        raise ValueError(f"{path}: PixelData ({syntax.name}) is truncated.")
    expected = dataset.Rows * dataset.Columns * samples * bits // 8
    if not syntax.is_encapsulated and kind != "YBR_FULL_422" and size < expected:
        raise ValueError(f"{path}: PixelData is truncated, {size} of {expected} bytes.")
    if not syntax.is_encapsulated and size >= 2 * expected:
        raise ValueError(f"{path}: PixelData has {size} bytes, expected {expected} by Rows and Columns.")


def decode_pixels(path: Path, dataset: pydicom.Dataset) -> np.ndarray:
    """Decode the stored values of a DICOM image, (H, W) or in colour (H, W, 3).

    Raises:
        ValueError: they cannot be decoded, or have another shape than the fields say.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        values = stored_values(dataset)
    except Exception as error:  # the decoder plug-ins raise types of their own
        raise ValueError(f"{path}: PixelData ({syntax.name}) cannot be decoded ({type(error).__name__}).") from None
    expected = (dataset.Rows, dataset.Columns, 3)[: 2 + (dataset.SamplesPerPixel == 3)]
    if values.shape != expected:
        raise ValueError(f"{path}: PixelData holds an array of shape {values.shape}, expected {expected}.")
    return values


def displayed(values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Turn the stored values (H, W) of a grey DICOM into uint8 (H, W) for display.

    The pipeline runs once for each stored value that can occur, not for each pixel.
    """
    padding = _is_padding(values, dataset)
    content = values if padding is None else values[~padding]
    if not content.size:
        return np.zeros(values.shape, dtype=np.uint8)
    low, high = int(content.min()), int(content.max())
    grey = _grey_scale(np.arange(low, high + 1), dataset)
    inverse = {dataset.PhotometricInterpretation, dataset.get("PresentationLUTShape")}
    if not inverse.isdisjoint({"MONOCHROME1", "INVERSE"}):
        grey = 255 - grey
    if padding is None:
        return grey[values.astype(np.int32) - low]
    return np.where(padding, np.uint8(0), grey[np.clip(values, low, high).astype(np.int32) - low])


def _is_padding(values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray | None:
    """Return where stored values are padding (PS3.3 C.7.5.1.1.2), bool of their shape, or None without any."""
    first = dataset.get("PixelPaddingValue")
    if first is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(first), int(first if limit is None else limit)))
    return (values >= low) & (values <= high)


def _grey_scale(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Turn stored values of a grey DICOM into uint8 of their shape, before any inversion."""
    if tables := dataset.get("ModalityLUTSequence"):
        values, _ = _look_up(stored, tables[0], dataset)
    else:
        slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
        values = stored * float(1 if slope is None else slope) + float(intercept or 0)
    if tables := dataset.get("VOILUTSequence"):
        values, bits = _look_up(values, tables[0], dataset)
        scaled = values * (255 / (2**bits - 1))
    elif dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        scaled = apply_windowing(values, _window(dataset))
    else:
        scaled = (values - values.min()) * (255 / (np.ptp(values) or 1))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _window(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """Take the first window of ``dataset`` as fields by which pydicom's windowing yields 0 to 255."""
    window = pydicom.Dataset()
    for name in ("WindowCenter", "WindowWidth"):
        setattr(window, name, float(np.atleast_1d(dataset[name].value)[0]))
    window.VOILUTFunction = dataset.get("VOILUTFunction") or "LINEAR"
    window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = "MONOCHROME2", 8, 0
    return window


def _look_up(values: np.ndarray, item: pydicom.Dataset, dataset: pydicom.Dataset) -> tuple[np.ndarray, int]:
    """Look numbers up in a LUT: its float64 entries for them, and its bits (PS3.3 C.11.1.1 and C.11.2.1.1).

    Not pydicom's ``apply_voi``: it keeps the index in the type of the entries, and so wraps around in a table of 8 bits
    with more than 256 entries.
    """
    entries, first, bits = item.LUTDescriptor
    table = item.LUTData
    if isinstance(table, bytes):
        order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
        wide = len(table) >= 2 * (entries or 2**16)
        table = np.frombuffer(table, dtype=f"{order}u2" if wide else np.uint8)
    table = np.asarray(table, dtype=np.float64)[: entries or 2**16]
    index = np.clip(np.rint(values).astype(np.int64) - int(first), 0, len(table) - 1)
    return table[index], int(bits)
