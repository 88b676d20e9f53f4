"""Readers for MONAI's ``LoadImaged``: colour images of any common file kind, and binary masks, row-major."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import torch
from monai.data import ImageReader
from monai.utils import MetaKeys, ensure_tuple
from PIL import Image, UnidentifiedImageError
from pydicom.errors import InvalidDicomError

_PIL_8BIT_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}


def is_dicom(path: Path) -> bool:
    """True if the file at ``path`` carries the DICOM prefix, whatever its name."""
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def open_image(path: Path) -> Image.Image:
    """Decode the image file at ``path`` completely, or raise ``ValueError`` naming the file."""
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path}: not a readable image file ({error}).") from error


def read_rgb_dicom(path: Path) -> np.ndarray:
    """One-frame colour DICOM (secondary capture, endoscopy) in, uint8 array (H, W, 3) in RGB out.

    Raises:
        ValueError: the file cannot be parsed, has no pixel data, more than one frame, or is not an 8-bit colour image.
    """
    try:
        dataset = pydicom.dcmread(path)
    except (InvalidDicomError, OSError, EOFError) as error:
        raise ValueError(f"{path}: not a readable DICOM file ({error}).") from error
    if "PixelData" not in dataset:
        raise ValueError(f"{path}: the DICOM file has no PixelData.")
    if int(dataset.get("NumberOfFrames", 1) or 1) != 1:
        raise ValueError(f"{path}: NumberOfFrames is {dataset.NumberOfFrames}, expected one frame.")
    kind = str(dataset.get("PhotometricInterpretation", ""))
    if dataset.get("SamplesPerPixel", 1) != 3 or dataset.get("BitsAllocated") != 8:
        raise ValueError(
            f"{path}: PhotometricInterpretation {kind!r}, SamplesPerPixel {dataset.get('SamplesPerPixel')}, "
            f"BitsAllocated {dataset.get('BitsAllocated')}: expected an 8-bit colour image."
        )
    try:
        return np.asarray(pydicom.pixels.pixel_array(dataset, raw=False))
    except Exception as error:  # the decoder plug-ins raise types of their own
        raise ValueError(f"{path}: the pixel data cannot be decoded ({type(error).__name__}: {error}).") from error


class _RowMajorReader(ImageReader):
    """What both readers share: one file in, (H, W[, C]) array and its meta data out."""

    def verify_suffix(self, filename: Sequence[Any] | Any) -> bool:
        """Accept every file: the content decides, and an unreadable one is reported by name."""
        return True

    def read(self, data: Sequence[Any] | Any, **_: Any) -> np.ndarray:
        """Read the one file named by ``data`` into an array (H, W[, C])."""
        paths = [Path(p) for p in ensure_tuple(data)]
        if len(paths) != 1:
            raise ValueError(f"expected one file, got {len(paths)}: {paths}.")
        if not paths[0].is_file():
            raise FileNotFoundError(f"{paths[0]}: no such file.")
        return self._decode(paths[0])

    @abstractmethod
    def _decode(self, path: Path) -> np.ndarray:
        """Decode the file at ``path``, or raise ``ValueError`` naming it and its fault."""

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        """Return the array unchanged with meta data: identity affine, spatial shape (H, W) and the channel axis."""
        channel_dim: float = float("nan") if img.ndim == 2 else -1
        meta = {
            MetaKeys.AFFINE: torch.eye(4, dtype=torch.float64),
            MetaKeys.ORIGINAL_AFFINE: torch.eye(4, dtype=torch.float64),
            MetaKeys.SPATIAL_SHAPE: np.asarray(img.shape[:2]),
            MetaKeys.ORIGINAL_CHANNEL_DIM: channel_dim,
        }
        return img, meta


class RGBImageReader(_RowMajorReader):
    """JPEG, PNG, TIFF, BMP or colour DICOM in, uint8 array (H, W, 3) in RGB order out; H is the image's height.

    Grey and palette images become RGB, an alpha channel is dropped, CMYK is converted. MONAI's own PIL reader returns
    (W, H) and its DICOM reader (H, W); here both are (H, W).

    Raises:
        ValueError: the file is corrupt, deeper than 8 bits, or a DICOM file that is no single 8-bit colour image.
    """

    def _decode(self, path: Path) -> np.ndarray:
        if is_dicom(path):
            return read_rgb_dicom(path)
        image = open_image(path)
        if image.mode not in _PIL_8BIT_MODES:
            raise ValueError(f"{path}: pixel mode {image.mode!r} is deeper than 8 bits a channel.")
        return np.asarray(image.convert("RGB"))


class BinaryMaskReader(_RowMajorReader):
    """Mask file in, uint8 array (H, W) of 0 and 1 out.

    Foreground is 128 and above (JPEG masks are not exactly 0 and 255), or 1 where the file holds only 0 and 1.

    Raises:
        ValueError: the file is corrupt or deeper than 8 bits.
    """

    def _decode(self, path: Path) -> np.ndarray:
        image = open_image(path)
        if image.mode not in _PIL_8BIT_MODES:
            raise ValueError(f"{path}: pixel mode {image.mode!r} is deeper than 8 bits a channel.")
        values = np.asarray(image.convert("L"))
        threshold = 1 if values.max(initial=0) <= 1 else 128
        return (values >= threshold).astype(np.uint8)
