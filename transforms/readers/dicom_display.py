"""DICOM images as on a display, by the pipeline of PS3.3. No torch is needed here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom

from .dicom import padding_of
from .dicom_tables import FieldError, LookUpTable, look_up_table
from .grey_values import look_up
from .pydicom_api import apply_windowing

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@contextmanager
def _faults_of(path: Path) -> Iterator[None]:
    """Name the file in errors, without what pydicom says: it may quote the value of a field."""
    try:
        yield
    except FieldError as error:
        raise ValueError(f"{path}: {error}.") from None
    except Exception as error:  # tables and windows of any kind of damage
        message = f"{path}: its LUT, window or palette cannot be applied ({type(error).__name__})."
        raise ValueError(message) from None


def displayed(path: Path, values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Turn the stored values (H, W) of a grey DICOM into uint8 (H, W) for display; padding is black.

    The pipeline runs once for each stored value that can occur, not for each pixel.

    Raises:
        ValueError: a field of the pipeline is damaged or contradicts others.
    """
    padding = padding_of(values, dataset)
    content = values if padding is None else values[~padding]
    if not content.size:
        return np.zeros(values.shape, dtype=np.uint8)
    low, high = int(content.min()), int(content.max())
    with _faults_of(path):
        grey = _grey_scale(np.arange(low, high + 1), dataset)
    if is_inverse(dataset):
        grey = 255 - grey
    # By the stored values themselves, of which negative ones count from the end.
    table = np.zeros(max(high, -1) + 1 - min(low, 0), dtype=np.uint8)
    table[np.arange(low, high + 1)] = grey
    if padding is None:
        return look_up(table, values)
    return np.where(padding, np.uint8(0), look_up(table, np.clip(values, low, high)))


def rescaled(path: Path, values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Turn stored values of a grey DICOM into the units of its modality LUT, or slope and intercept (such as HU).

    Returns:
        numbers of the same shape; the stored values themselves where there is nothing to apply.

    Raises:
        ValueError: these fields are damaged.
    """
    with _faults_of(path):
        return _rescaled(values, dataset)


def colours(path: Path, values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Return a colour DICOM as RGB (H, W, 3): uint8, a palette's colours too, or uint16 where its samples are so deep.

    Raises:
        ValueError: the palette is damaged.
    """
    if values.ndim == 3:
        return values
    with _faults_of(path):
        tables = [_palette(dataset, colour) for colour in ("Red", "Green", "Blue")]
        # Palettes have entries of 8 or 16 bits; of the latter the upper 8 are those of a screen.
        is_deep = max(int(table.entries.max()) for table in tables) > 255
        rgb = np.stack([table.look_up(values) for table in tables], axis=-1)
        return (rgb >> 8 if is_deep else rgb).astype(np.uint8)


def is_inverse(dataset: pydicom.Dataset) -> bool:
    """Tell whether low values are bright: MONOCHROME1 and the presentation shape INVERSE are two names of one fact."""
    fields = {dataset.get("PhotometricInterpretation"), dataset.get("PresentationLUTShape")}
    return not fields.isdisjoint({"MONOCHROME1", "INVERSE"})


def _grey_scale(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Turn stored values of a grey DICOM into uint8 of their shape, before any inversion."""
    values = _rescaled(stored, dataset)
    if table := _first_table(dataset, "VOILUTSequence"):
        scaled = table.look_up(values) * (255 / table.white)
    elif window := _window(dataset, values):
        scaled = apply_windowing(values, window)
    else:
        scaled = (values - values.min()) * (255 / (np.ptp(values) or 1))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _rescaled(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    if table := _first_table(dataset, "ModalityLUTSequence"):
        return table.look_up(stored)
    slope, intercept = _number(dataset, "RescaleSlope", 1.0), _number(dataset, "RescaleIntercept", 0.0)
    if not slope:
        raise FieldError("RescaleSlope is 0, which leaves no image")
    if (slope, intercept) == (1, 0):
        return stored
    values = stored * slope
    values += intercept
    return values


def _window(dataset: pydicom.Dataset, values: np.ndarray) -> pydicom.Dataset | None:
    """Find the first valid window, as fields by which pydicom's windowing yields 0 to 255; None where there is none.

    A width of 0 or an empty, infinite or missing number makes none. LINEAR is defined for widths of 1 and more (PS3.3
    C.11.2.1.2.1); a smaller one, or 1 on values that are no whole numbers, is meant as LINEAR_EXACT.
    """
    pairs = zip(_numbers(dataset, "WindowCenter"), _numbers(dataset, "WindowWidth"), strict=False)
    center, width = next(((c, w) for c, w in pairs if np.isfinite([c, w]).all() and w > 0), (0.0, 0.0))
    if not width:
        return None
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in _FUNCTIONS:
        raise FieldError(f"VOILUTFunction is none of {', '.join(_FUNCTIONS)}")
    if function == "LINEAR" and (width < 1 or (width == 1 and (values != np.rint(values)).any())):
        function = "LINEAR_EXACT"
    window = pydicom.Dataset()
    window.WindowCenter, window.WindowWidth, window.VOILUTFunction = center, width, function
    window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = "MONOCHROME2", 8, 0
    return window


def _numbers(dataset: pydicom.Dataset, name: str) -> list[float]:
    """Take the numbers of a field, NaN for each that is empty."""
    value = dataset.get(name)
    items = [] if value is None else list(np.atleast_1d(np.asarray(value, dtype=object)))
    try:
        return [float(item) if str(item).strip() else np.nan for item in items]
    except (TypeError, ValueError):
        raise FieldError(f"{name} is no number") from None


def _number(dataset: pydicom.Dataset, name: str, default: float) -> float:
    numbers = _numbers(dataset, name) or [default]
    if len(numbers) != 1 or np.isinf(numbers[0]):
        raise FieldError(f"{name} is no finite number")
    return default if np.isnan(numbers[0]) else numbers[0]


def _first_table(dataset: pydicom.Dataset, sequence: str) -> LookUpTable | None:
    """Read the first table of a sequence; None where there is none."""
    items = dataset.get(sequence)
    return _table(dataset, items[0], "LUT", f"the table of {sequence}") if items else None


def _palette(dataset: pydicom.Dataset, colour: str) -> LookUpTable:
    return _table(dataset, dataset, f"{colour}PaletteColorLookupTable", f"{colour}PaletteColorLookupTable")


def _table(dataset: pydicom.Dataset, item: pydicom.Dataset, keyword: str, name: str) -> LookUpTable:
    little_endian = dataset.file_meta.TransferSyntaxUID.is_little_endian
    return look_up_table(
        item.get(f"{keyword}Descriptor"), item.get(f"{keyword}Data"), name, little_endian=little_endian
    )
