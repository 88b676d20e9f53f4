"""Reader of frontal chest X-rays of any common file kind, grey as on a display."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image, ImageChops, ImageStat

from .decoding import is_dicom, is_nifti, read_nifti
from .dicom import check_pixels, decode_pixels, is_bare_dicom, is_grey, read_fields, silent_pydicom
from .dicom_display import colours, displayed
from .grey_values import count_values, look_up
from .images import RowMajorReader
from .plausibility import plausibility
from .raster import PIL_8BIT_MODES, check_finite, is_white_zero, read_raster

# Film on a light box, or grey with coloured marks, stays below; photographs of the body lie above.
MAX_COLOUR = 15.0
MIN_SIDE = 32
_FORCE = "(--force true reads it all the same)"
_MODALITIES = ("CR", "DX", "DR", "RG")


class ChestXRayReader(RowMajorReader):
    """Read a frontal chest X-ray as uint8 (H, W), grey as on a display: 0 is black (air), 255 white (bone).

    JPEG, PNG, TIFF, BMP, GIF, PGM (each also gzip-compressed) of any pixel mode, NIfTI of one slice, and DICOM (CR, DX,
    secondary capture). Images of 8 bits are taken as they are. Deeper ones have no window in the file: their lowest
    value becomes 0 and their highest 255. DICOM goes through the grey-scale pipeline of PS3.3: modality LUT or rescale
    (C.11.1), VOI LUT or the first valid window (C.11.2; lowest to highest value where there is neither), then inverted
    for MONOCHROME1 or the presentation LUT shape INVERSE, which are two names of one fact. Padding is black.

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

    def get_data(self, img: np.ndarray) -> tuple[np.ndarray, dict]:
        """Return the array unchanged with meta data, among them a ``warning`` where it hardly looks like an X-ray."""
        grey, meta = super().get_data(img)
        return grey, meta | {"warning": plausibility(grey)}

    def _decode(self, path: Path) -> np.ndarray:
        if is_dicom(path) or is_bare_dicom(path):
            with silent_pydicom():
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
        image = read_raster(path, decode_size=self.decode_size)
        if isinstance(image, np.ndarray):
            return self._as_grey(path, Image.fromarray(stretch(path, image)))
        if image.mode in PIL_8BIT_MODES - {"LAB", "HSV"}:
            return self._as_grey(path, image)
        if image.mode in ("LAB", "HSV"):
            raise ValueError(f"{path}: pixel mode {image.mode!r} is no mode of an X-ray.")
        grey = stretch(path, np.asarray(image))
        return 255 - grey if is_white_zero(image) else grey

    def _as_grey(self, path: Path, image: Image.Image) -> np.ndarray:
        if image.mode not in ("1", "L", "LA"):
            image = image if image.mode == "RGB" else image.convert("RGB")
            if not self.force and (colour := mean_colour(image)) > MAX_COLOUR:
                raise ValueError(
                    f"{path}: a colour image, no X-ray: its channels differ by {colour:.0f} of 255 on average, "
                    f"expected {MAX_COLOUR:.0f} or less {_FORCE}."
                )
        return np.asarray(image if image.mode == "L" else image.convert("L"))

    def _decode_dicom(self, path: Path) -> np.ndarray:
        dataset = read_fields(path)
        check_pixels(path, dataset)
        if not self.force and (reason := reason_against(dataset)):
            raise ValueError(f"{path}: {reason} {_FORCE}.")
        values = decode_pixels(path, dataset)
        if is_grey(dataset):
            return displayed(path, values, dataset)
        rgb = colours(path, values, dataset)
        return self._as_grey(path, Image.fromarray(rgb if rgb.dtype == np.uint8 else stretch(path, rgb)))


def mean_colour(image: Image.Image) -> float:
    """Average over the pixels of an RGB image the largest difference between two channels: 0 (grey) to 255."""
    red, green, blue = image.split()
    highest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    lowest = ImageChops.darker(ImageChops.darker(red, green), blue)
    return ImageStat.Stat(ImageChops.subtract(highest, lowest)).mean[0]


def stretch(path: Path, values: np.ndarray) -> np.ndarray:
    """Stretch numbers of any depth to uint8: the lowest becomes 0, the highest 255.

    A burnt-in marker or a broken pixel does not set the contrast: values farther from the 1st or 99th percentile than
    half of what lies between the two are cut off.

    Raises:
        ValueError: some are not finite.
    """
    if not values.size:
        return np.zeros(values.shape, dtype=np.uint8)
    if values.dtype in (np.uint8, np.uint16):
        # One entry for each value that occurs instead of a calculation for each pixel.
        counts = count_values(values)
        low, high = _contrast(np.flatnonzero(counts), counts[counts > 0])
        shifted = (np.arange(len(counts)) - low).clip(0, high - low)
        return look_up(np.rint(shifted * (255 / (high - low or 1))).astype(np.uint8), values)
    numbers = values.astype(np.float64)
    check_finite(path, numbers)
    low, high = _contrast(*np.unique(numbers, return_counts=True))
    return np.rint((numbers - low).clip(0, high - low) * (255 / (high - low or 1))).astype(np.uint8)


def _contrast(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Find the lowest and the highest value that are not far from all others, of values in order and their counts."""
    shares = np.cumsum(counts) / counts.sum()
    first, last = values[np.searchsorted(shares, [0.01, 0.99])]
    margin = (last - first) / 2 or np.inf
    near = values[(values >= first - margin) & (values <= last + margin)]
    return float(near[0]), float(near[-1])


def reason_against(dataset: pydicom.Dataset) -> str:
    """Say why a DICOM image is no frontal chest X-ray ready for display by its fields, or nothing."""
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
    """Tell whether a body part in capitals is the chest; ribs and thoracic spine are other exposures and crops."""
    return "SPINE" not in body_part and any(w in body_part for w in ("CHEST", "THORAX", "TORAX", "LUNG"))


def is_frontal(view: str) -> bool:
    """Tell whether a view in capitals (``PA``, ``POSTERO-ANTERIOR``) is frontal, not lateral, oblique or unknown."""
    words = re.findall("[A-Z]+", view)
    spelled = any(name in "".join(words) for name in ("ANTEROPOSTERIOR", "POSTEROANTERIOR"))
    sideways = {"LL", "RL", "LLD", "RLD", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO"}
    others = [w for w in words if w in sideways or w.startswith(("LAT", "LLAT", "RLAT", "OBL", "DECUB"))]
    return not others and (spelled or not {"AP", "PA", "FRONTAL"}.isdisjoint(words))
