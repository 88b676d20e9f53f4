"""Reader for MONAI's ``LoadImaged``: one frontal chest X-ray of any common file kind, grey as on a display."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image, ImageChops, ImageStat
from pydicom.datadict import keyword_for_tag
from pydicom.pixels import apply_color_lut, apply_windowing, pixel_array
from pydicom.uid import (
    AllTransferSyntaxes,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from .decoding import PIL_8BIT_MODES, is_dicom, is_nifti, open_image, read_nifti
from .images import RowMajorReader

# Film on a light box, or grey with coloured marks, stays below; photographs of the body lie above.
MAX_COLOUR = 15.0
MIN_SIDE = 32

_FORCE = "(force=True reads it all the same)"
_MODALITIES = ("CR", "DX", "DR", "RG")
_SINGLE_FRAME = ("GIF", "PNG", "TIFF", "WEBP")
_WHITE_IS_ZERO = (262, 0)  # PhotometricInterpretation of TIFF
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


class ChestXRayReader(RowMajorReader):
    """Frontal chest X-ray file in, uint8 array (H, W) out: grey as displayed, 0 black (air) to 255 white (bone).

    JPEG, PNG, TIFF, BMP, GIF, PGM (each also gzip-compressed) of any pixel mode, NIfTI of one slice, and DICOM (CR, DX,
    secondary capture). Images of 8 bits are taken as they are. Deeper ones have no window in the file: their lowest
    value becomes 0 and their highest 255. DICOM goes through the grey-scale pipeline of PS3.3: modality LUT or rescale
    (C.11.1), VOI LUT or the first window (C.11.2; lowest to highest value where there is neither), then inverted for
    MONOCHROME1 or the presentation LUT shape INVERSE, which are two names of one fact. Padding is black.

    No field of a DICOM file that names or describes the patient is parsed, and messages quote only fields that describe
    the image.

    Args:
        force: read also what is known to be no frontal chest X-ray ready for display: a colour image, or a DICOM whose
            modality, body part, view, orientation, intent or burned-in annotation says so. A field that is absent or
            empty is no reason to refuse.
        decode_size: JPEG files are decoded at 1/2, 1/4 or 1/8 of their size as long as both sides keep this many px.

    Raises:
        ValueError: the file is corrupt or truncated, of several frames, below 32 px a side, of one value all over, or
            (without ``force``) known to be no frontal chest X-ray.
    """

    def __init__(self, *, force: bool = False, decode_size: int | None = None) -> None:
        if decode_size is not None and (not isinstance(decode_size, int) or decode_size < MIN_SIDE):
            raise ValueError(
                f"decode_size is {decode_size!r}: expected None or a whole number of {MIN_SIDE} px or more."
            )
        self.force = force
        self.decode_size = decode_size

    def _decode(self, path: Path) -> np.ndarray:
        if is_dicom(path) or _is_bare_dicom(path):
            with _silent_pydicom():
                grey = self._decode_dicom(path)
        elif is_nifti(path):
            values = read_nifti(path)
            grey = self._as_grey(path, Image.fromarray(values if values.dtype == np.uint8 else stretch(path, values)))
        else:
            grey = self._decode_picture(path)
        height, width = grey.shape
        if min(height, width) < MIN_SIDE:
            raise ValueError(f"{path}: an image of {width}x{height} px, expected {MIN_SIDE} px or more a side.")
        if grey.min() == grey.max():
            raise ValueError(f"{path}: every pixel has the same value, so there is no image.")
        return grey

    def _decode_picture(self, path: Path) -> np.ndarray:
        image = open_image(path, decode_size=self.decode_size, single_frame=_SINGLE_FRAME)
        if image.mode in PIL_8BIT_MODES - {"LAB", "HSV"}:
            return self._as_grey(path, image)
        if image.mode in ("LAB", "HSV"):
            raise ValueError(f"{path}: pixel mode {image.mode!r} is no mode of an X-ray.")
        grey = stretch(path, np.asarray(image))
        # Pillow turns this kind of TIFF to light on dark at 8 bits, and not above.
        return 255 - grey if _WHITE_IS_ZERO in getattr(image, "tag_v2", {}).items() else grey

    def _as_grey(self, path: Path, image: Image.Image) -> np.ndarray:
        if image.mode not in ("1", "L", "LA"):
            image = image.convert("RGB")
            if not self.force and (colour := mean_colour(image)) > MAX_COLOUR:
                raise ValueError(
                    f"{path}: a colour image, no X-ray: its channels differ by {colour:.0f} of 255 on average, "
                    f"expected {MAX_COLOUR:.0f} or less {_FORCE}."
                )
        return np.asarray(image.convert("L"))

    def _decode_dicom(self, path: Path) -> np.ndarray:
        dataset = _read_tags(path)
        _check_pixels(path, dataset)
        if not self.force and (reason := reason_against(dataset)):
            raise ValueError(f"{path}: {reason} {_FORCE}.")
        try:
            # The plug-in for RLE that pydicom prefers does not survive a damaged stream.
            rle = dataset.file_meta.TransferSyntaxUID == RLELossless
            values = pixel_array(dataset, raw=False, decoding_plugin="pydicom" if rle else "")
        except Exception as error:  # the decoder plug-ins raise types of their own
            syntax = dataset.file_meta.TransferSyntaxUID.name
            message = f"{path}: PixelData ({syntax}) cannot be decoded ({type(error).__name__})."
            raise ValueError(message) from None
        expected = (dataset.Rows, dataset.Columns, 3)[: 2 + (dataset.SamplesPerPixel == 3)]
        if values.shape != expected:
            raise ValueError(f"{path}: PixelData holds an array of shape {values.shape}, expected {expected}.")
        try:
            if dataset.SamplesPerPixel == 1 and dataset.PhotometricInterpretation != "PALETTE COLOR":
                return displayed(values, dataset)
            rgb = values if values.ndim == 3 else apply_color_lut(values, dataset)
        except Exception as error:  # tables and windows of any kind of damage
            message = f"{path}: its LUT, window or palette cannot be applied ({type(error).__name__})."
            raise ValueError(message) from None
        return self._as_grey(path, Image.fromarray(rgb if rgb.dtype == np.uint8 else stretch(path, rgb)))


def mean_colour(image: Image.Image) -> float:
    """RGB image in, mean over its pixels of the largest difference between two channels out: 0 (grey) to 255."""
    red, green, blue = image.split()
    highest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    lowest = ImageChops.darker(ImageChops.darker(red, green), blue)
    return ImageStat.Stat(ImageChops.subtract(highest, lowest)).mean[0]


def stretch(path: Path, values: np.ndarray) -> np.ndarray:
    """Numbers of any depth in, uint8 of the same shape out: the lowest becomes 0, the highest 255.

    Raises:
        ValueError: some are not finite.
    """
    if values.dtype in (np.uint8, np.uint16) and values.size:
        # One entry for each value that occurs instead of a calculation for each pixel.
        low, high = int(values.min()), int(values.max())
        table = np.rint((np.arange(low, high + 1) - low) * (255 / (high - low or 1))).astype(np.uint8)
        return table[values - values.dtype.type(low)]
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{path}: {values.dtype} pixels with values that are not finite.")
    low, extent = numbers.min(initial=np.inf), np.ptp(numbers) if numbers.size else 0
    return np.rint((numbers - low) * (255 / (extent or 1))).astype(np.uint8)


@contextmanager
def _silent_pydicom() -> Iterator[None]:
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


def _is_bare_dicom(path: Path) -> bool:
    """True if the file starts with a data element of group 0008 (or 0002), without preamble and prefix."""
    with path.open("rb") as stream:
        start = stream.read(4)
    return start[:2] in (b"\x08\x00", b"\x02\x00") and start[3:] == b"\x00"


def _read_tags(path: Path) -> pydicom.Dataset:
    """DICOM file in, the fields of ``_TAGS`` out, each parsed.

    The errors are raised without their cause: pydicom's own text may quote the value of a field.
    """
    try:
        dataset = pydicom.dcmread(path, specific_tags=list(_TAGS), force=True)
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
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    if dataset.file_meta.TransferSyntaxUID not in AllTransferSyntaxes:
        raise ValueError(f"{path}: TransferSyntaxUID is none that can be decoded.")
    return dataset


def _check_pixels(path: Path, dataset: pydicom.Dataset) -> None:
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


def reason_against(dataset: pydicom.Dataset) -> str:
    """Fields of a DICOM image in, why it is no frontal chest X-ray ready for display out, or nothing."""
    modality, body_part, view = (_text(dataset, k) for k in ("Modality", "BodyPartExamined", "ViewPosition"))
    sop_class = getattr(dataset.get("SOPClassUID"), "name", "")  # the UID itself where it is unknown
    captured = "Secondary Capture" in sop_class
    radiograph = captured or "Computed Radiography" in sop_class or "Digital X-Ray" in sop_class or not sop_class
    if modality not in _MODALITIES and not (captured and modality in ("OT", "SC")) and (modality or not radiograph):
        kind = f"Modality is {modality!r}" if modality else f"SOPClassUID is {sop_class}"
        return f"{kind}, expected a projection radiograph ({', '.join(_MODALITIES)})"
    if body_part and not is_chest(body_part):
        return f"BodyPartExamined is {body_part!r}, no chest"
    if view and not is_frontal(view):
        return f"ViewPosition is {view!r}, not frontal (PA or AP)"
    for item in dataset.get("ViewCodeSequence") or ():
        if (meaning := _text(item, "CodeMeaning", length=64)) and not is_frontal(meaning):
            return f"ViewCodeSequence says {meaning!r}, not frontal"
    orientation = dataset.get("PatientOrientation") or ()
    if any(str(direction)[:1] in ("A", "P") for direction in orientation):
        return (
            "PatientOrientation has rows or columns between front and back of the patient, so the view is not frontal"
        )
    if _text(dataset, "PresentationIntentType") == "FOR PROCESSING":
        return "PresentationIntentType is 'FOR PROCESSING', raw values of the detector and not the image for display"
    if _text(dataset, "BurnedInAnnotation") == "YES":
        return "BurnedInAnnotation is 'YES', so its pixels may show who the patient is"
    return ""


def _text(dataset: pydicom.Dataset, name: str, *, length: int = 16) -> str:
    """Return a code string in capitals, of its standard's length at most, and nothing where it is absent."""
    return str(dataset.get(name) or "").strip().upper()[:length]


def is_chest(body_part: str) -> bool:
    """Body part in capitals in, True out for the chest; ribs and thoracic spine are other exposures and crops."""
    return "SPINE" not in body_part and any(w in body_part for w in ("CHEST", "THORAX", "TORAX", "LUNG"))


def is_frontal(view: str) -> bool:
    """View in capitals in (``PA``, ``AP SUPINE``, ``POSTERO-ANTERIOR``), True out unless lateral, oblique, unknown."""
    words = re.findall("[A-Z]+", view)
    spelled = any(name in "".join(words) for name in ("ANTEROPOSTERIOR", "POSTEROANTERIOR"))
    sideways = {"LL", "RL", "LLD", "RLD", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO"}
    others = [w for w in words if w in sideways or w.startswith(("LAT", "LLAT", "RLAT", "OBL", "DECUB"))]
    return not others and (spelled or not {"AP", "PA", "FRONTAL"}.isdisjoint(words))


def displayed(values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Stored values (H, W) of a grey DICOM in, uint8 (H, W) for display out.

    The pipeline runs once for each stored value that can occur, not for each pixel.
    """
    padding = _is_padding(values, dataset)
    shown = values if padding is None else values[~padding]
    if not shown.size:
        return np.zeros(values.shape, dtype=np.uint8)
    low, high = int(shown.min()), int(shown.max())
    grey = _grey_scale(np.arange(low, high + 1), dataset)
    inverse = {dataset.PhotometricInterpretation, dataset.get("PresentationLUTShape")}
    if not inverse.isdisjoint({"MONOCHROME1", "INVERSE"}):
        grey = 255 - grey
    if padding is None:
        return grey[values.astype(np.int32) - low]
    return np.where(padding, np.uint8(0), grey[np.clip(values, low, high).astype(np.int32) - low])


def _is_padding(values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray | None:
    """Stored values in, bool of their shape out where they are padding (PS3.3 C.7.5.1.1.2), or None without any."""
    first = dataset.get("PixelPaddingValue")
    if first is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(first), int(first if limit is None else limit)))
    return (values >= low) & (values <= high)


def _grey_scale(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Stored values of a grey DICOM in, uint8 of their shape out, before any inversion."""
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
    """Numbers and a LUT in, its float64 entries for them and its bits out (PS3.3 C.11.1.1 and C.11.2.1.1).

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
