"""Readers for MONAI's ``LoadImaged``: colour images of any common file kind, and binary masks, rows first."""

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

from .decoding import (
    check_range,
    is_dicom,
    is_nifti,
    read_nifti,
)
from .dicom import check_pixels, decode_pixels, is_bare_dicom, is_grey, padding_of, read_fields, silent_pydicom
from .dicom_display import colours, is_inverse, rescaled
from .masks import read_mask
from .raster import PIL_8BIT_MODES, check_finite, is_white_zero, read_raster


class RowMajorReader(ImageReader):
    """Base of the readers for MONAI's ``LoadImaged``: from one file to an array (H, W[, C]) and its meta data."""

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
        values = self._decode(paths[0])
        if not values.size:
            raise ValueError(f"{paths[0]}: an image of {values.shape[1]}x{values.shape[0]} px is empty.")
        return values

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


class RGBImageReader(RowMajorReader):
    """Read an image as uint8 (H, W, 3) in RGB order; H is its height.

    JPEG, PNG, TIFF, BMP, GIF, PPM (each also gzip-compressed), colour DICOM and two-dimensional NIfTI. Grey and palette
    images become RGB, an alpha channel is dropped, CMYK is converted. MONAI's own PIL reader returns (W, H) and its
    DICOM reader (H, W); here both are (H, W).

    Args:
        intensity_range: values (low, high) that become 0 and 255, linearly and clipped, in images that are deeper than
            8 bits: 16-bit TIFF or PNG, NIfTI, colour DICOM of 16 bits, grey DICOM after its rescaling. MONOCHROME1 is
            turned to light on dark, and padding is black. Images of 8 bits are taken as they are. Without it, deeper
            images and any grey DICOM are refused: which values matter is not in the file.

    Raises:
        ValueError: the file is corrupt, empty, deeper than 8 bits where no ``intensity_range`` is given, or a DICOM or
            NIfTI file that is no single image.
    """

    def __init__(self, intensity_range: Sequence[float] | None = None) -> None:
        check_range(intensity_range)
        self.intensity_range = intensity_range

    def _decode(self, path: Path) -> np.ndarray:
        if is_dicom(path) or is_bare_dicom(path):
            with silent_pydicom():
                return self._decode_dicom(path)
        if is_nifti(path):
            values = read_nifti(path)
            return _as_rgb(values if values.dtype == np.uint8 else self._to_8_bits(values, path, f"{values.dtype}"))
        image = read_raster(path)
        if isinstance(image, np.ndarray):
            return _as_rgb(self._to_8_bits(image, path, f"{image.dtype}"))
        if image.mode in PIL_8BIT_MODES:
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
        grey = self._to_8_bits(np.asarray(image), path, f"pixel mode {image.mode!r}")
        return _as_rgb(255 - grey if is_white_zero(image) else grey)

    def _decode_dicom(self, path: Path) -> np.ndarray:
        dataset = read_fields(path)
        if self.intensity_range is None and is_grey(dataset):
            raise ValueError(
                f"{path}: PhotometricInterpretation is {dataset.PhotometricInterpretation!r}, expected a colour image: "
                "a grey one is read with intensity_range=(low, high)."
            )
        check_pixels(path, dataset)
        values = decode_pixels(path, dataset)
        if is_grey(dataset):
            return _as_rgb(self._grey_of_dicom(path, values, dataset))
        rgb = colours(path, values, dataset)
        return rgb if rgb.dtype == np.uint8 else self._to_8_bits(rgb, path, "colour DICOM")

    def _grey_of_dicom(self, path: Path, values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
        numbers = rescaled(path, values, dataset)
        is_plain = numbers.dtype == np.uint8 and dataset.BitsStored == 8
        grey = numbers if is_plain else self._to_8_bits(numbers, path, "grey DICOM")
        if is_inverse(dataset):
            grey = 255 - grey
        padding = padding_of(values, dataset)
        return grey if padding is None else np.where(padding, np.uint8(0), grey)

    def _to_8_bits(self, values: np.ndarray, path: Path, kind: str) -> np.ndarray:
        """Scale values of any depth to uint8 by ``intensity_range``."""
        if self.intensity_range is None:
            extent = f" (values {values.min():g} to {values.max():g})" if values.size else ""
            raise ValueError(
                f"{path}: {kind} is deeper than 8 bits a channel{extent}: "
                "give intensity_range=(low, high), the values that become 0 and 255."
            )
        check_finite(path, values)
        low, high = self.intensity_range
        scaled = np.empty(values.shape, dtype=np.uint8)
        for row, numbers in enumerate(values):  # one by one, for float64 takes eight times the memory
            scaled[row] = np.clip(np.rint((numbers.astype(np.float64) - low) * 255 / (high - low)), 0, 255)
        return scaled


def _as_rgb(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=-1) if values.ndim == 2 else np.ascontiguousarray(values)


class BinaryMaskReader(RowMajorReader):
    """Read a binary mask as uint8 (H, W) of 0 and 1, by :func:`clinbundles.transforms.readers.masks.read_mask`.

    Raises:
        ValueError: the file is corrupt, empty, deeper than 8 bits, or looks like a label map.
    """

    def _decode(self, path: Path) -> np.ndarray:
        return read_mask(path).astype(np.uint8)
