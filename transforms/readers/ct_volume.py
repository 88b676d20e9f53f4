"""CT volumes in HU in one order of axes, from a NIfTI file or a DICOM series, checked against their own pixels.

The order: slices towards the head, rows towards posterior, columns towards the patient's left. One slice is then the
radiological view, in which the patient's left is the right half of the picture. No torch is needed here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import (
    aff2axcodes,
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from .ct_series import read_series
from .decoding import is_nifti, is_scaled, nifti_faults, open_nifti
from .limits import check_bytes

ORDER = ("L", "P", "S")
MOST_DEGREES, MOST_SHIFT_MM = 1.0, 0.1
# Below the first there is air, within the second the soft tissue of any patient, outside the third no CT number.
AIR_HU, TISSUE_HU, POSSIBLE_HU = -500.0, (-200.0, 200.0), (-32768.0, 65535.0)
LEAST_AIR, LEAST_TISSUE = 0.001, 0.01
# What lies below pads the field of view.
LOWEST_HU = -1024


@dataclass(frozen=True)
class CTVolume:
    """A CT volume in HU.

    Args:
        values: int16 or float32 (slice, row, column), towards head, posterior and the patient's left; at least -1024.
        affine: float64 (4, 4), from (column, row, slice) to millimetres towards right, anterior, superior as in NIfTI.
        file_affine: the affine of the array as the file has it.
    """

    values: np.ndarray
    affine: np.ndarray
    file_affine: np.ndarray

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of slices, rows and columns."""
        column, row, slice_ = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(slice_), float(row), float(column)

    def as_in_file(self, values: np.ndarray, *, dtype: Any = None) -> np.ndarray:
        """Turn an array in the order of ``values`` into that of the file, (x, y, z) of ``file_affine``."""
        orientation = ornt_transform(axcodes2ornt(ORDER), io_orientation(self.file_affine))
        return np.ascontiguousarray(apply_orientation(values.transpose(2, 1, 0), orientation), dtype=dtype)


def read_ct(source: str | Path | Sequence[str | Path]) -> CTVolume:
    """Read a CT volume.

    Args:
        source: a NIfTI file, the folder of one DICOM series, or the list of its files.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it is no CT volume, or what it says about itself is not so.
    """
    array, affine, name = read_array(source)
    check_axes(affine, name)
    check_hu(array, name)
    orientation = ornt_transform(io_orientation(affine), axcodes2ornt(ORDER))
    is_short = array.dtype.kind in "iu" and array.max() < 2**15
    view = apply_orientation(array, orientation).transpose(2, 1, 0)
    values = np.array(view, dtype=np.int16 if is_short else np.float32, order="C")
    np.maximum(values, values.dtype.type(LOWEST_HU), out=values)
    return CTVolume(values, affine @ inv_ornt_aff(orientation, array.shape), affine)


def read_labels(path: Path, volume: CTVolume, *, ids: Collection[int]) -> np.ndarray:
    """Read the label map of a CT volume, a NIfTI file of the same geometry in any order of axes.

    Args:
        path: the file.
        volume: the CT.
        ids: those that may occur.

    Returns:
        uint8 (slice, row, column), as the values of the volume.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it lies elsewhere, or holds other values.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    array, affine = load_nifti(path)
    check_axes(affine, str(path))
    orientation = ornt_transform(io_orientation(affine), axcodes2ornt(ORDER))
    labels = apply_orientation(array, orientation).transpose(2, 1, 0)
    if labels.shape != volume.values.shape:
        raise ValueError(f"{path}: label map of {labels.shape} (slice, row, column), the CT has {volume.values.shape}.")
    shift = np.abs(affine @ inv_ornt_aff(orientation, array.shape) - volume.affine).max()
    if shift > MOST_SHIFT_MM:
        raise ValueError(f"{path}: the affine is not that of the CT, they differ by {shift:.2f} mm.")
    if strange := sorted(set(np.unique(labels).tolist()) - set(ids)):
        raise ValueError(f"{path}: id {strange[0]:g}, expected {', '.join(map(str, ids))}.")
    return np.ascontiguousarray(labels, dtype=np.uint8)


def read_array(source: str | Path | Sequence[str | Path]) -> tuple[np.ndarray, np.ndarray, str]:
    """Read an array (x, y, z) as the file has it, its affine as in NIfTI, and what to call it in a message."""
    paths = [Path(source)] if isinstance(source, str | Path) else [Path(path) for path in source]
    if not paths:
        raise ValueError("an empty list of files is no CT volume.")
    if missing := [path for path in paths if not path.exists()]:
        raise FileNotFoundError(f"{missing[0]}: no such file or folder.")
    if len(paths) == 1 and is_nifti(paths[0]):
        array, affine = load_nifti(paths[0])
        if array.dtype.kind in "iu" and array.dtype.itemsize == 1:
            raise ValueError(f"{paths[0]}: NIfTI of {array.dtype} ({array.min()} to {array.max()}), which holds no HU.")
        return array, affine, str(paths[0])
    return read_series(paths)


def load_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the array (x, y, z) of a NIfTI file and its affine.

    Raises:
        ValueError: the file cannot be read, is no volume, or says nothing about its geometry.
    """
    with nifti_faults(path):
        image = open_nifti(path)
        array, affine = _values_of(path, image), np.asarray(image.affine)
    if array.ndim != 3 or min(array.shape) < 1:
        raise ValueError(f"{path}: NIfTI of shape {array.shape}, expected a volume of three axes.")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{path}: NIfTI of {array.dtype}, expected one number a voxel.")
    check_header(image.header, name=str(path))
    return array, affine.astype(np.float64)


def _values_of(path: Path, image: Any) -> np.ndarray:
    """Read the values of a NIfTI image (x, y, z); scaled ones as int32 if slope and intercept are whole, else float32.

    nibabel makes float64 of them, all at once.
    """
    if not is_scaled(image) or image.dataobj.dtype.kind not in "iu" or len(image.shape) != 3:
        return np.asanyarray(image.dataobj)
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    is_whole = slope.is_integer() and intercept.is_integer()
    check_bytes(path, 4 * math.prod(image.shape), f"a volume of {'x'.join(map(str, image.shape))} voxels")
    stored = image.dataobj.get_unscaled()
    values = np.empty(image.shape, dtype=np.int32 if is_whole else np.float32, order="F")
    for k in range(image.shape[2]):
        values[..., k] = stored[..., k].astype(np.float64) * slope + intercept
    return values


def check_header(header: Any, *, name: str) -> None:
    """Refuse a NIfTI header that tells no geometry, or two.

    Raises:
        ValueError: it is so.
    """
    forms = [form for form in (header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]) if form is not None]
    if not forms:
        raise ValueError(f"{name}: qform_code and sform_code are 0, so left and right of the patient are not known.")
    lengths, spacing = np.linalg.norm(forms[0][:3, :3], axis=0), np.asarray(header.get_zooms()[:3])
    if not np.allclose(lengths, spacing, rtol=0.01):
        raise ValueError(f"{name}: the affine gives voxels of {_by(lengths)} mm, pixdim of {_by(spacing)} mm.")
    if len(forms) == 2 and (io_orientation(forms[0]) != io_orientation(forms[1])).any():
        axes = ["".join(aff2axcodes(form)) for form in forms]
        raise ValueError(f"{name}: the axes go towards {axes[0]} by the sform, towards {axes[1]} by the qform.")


def check_axes(affine: np.ndarray, name: str) -> None:
    """Refuse an affine that has no length along an axis, or an axis more than a degree off the patient's.

    Raises:
        ValueError: it is so.
    """
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not (lengths > 0).all():
        raise ValueError(f"{name}: the affine gives voxels of {_by(lengths)} mm.")
    cosines = np.abs(affine[:3, :3] / lengths)
    degrees = np.degrees(np.arccos(np.clip(cosines.max(axis=0), 0, 1)))
    if degrees.max() > MOST_DEGREES or len(set(cosines.argmax(axis=0))) < 3:
        raise ValueError(
            f"{name}: the affine is oblique, {degrees.max():.1f} degrees off the patient's axes, expected at most "
            f"{MOST_DEGREES:g}."
        )


def check_hu(array: np.ndarray, name: str) -> None:
    """Refuse values that cannot be those of a CT in HU.

    Raises:
        ValueError: it is so.
    """
    low, high = float(array.min()), float(array.max())
    extent = f"values from {low:g} to {high:g}"
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{name}: {extent}, expected finite HU.")
    if low < POSSIBLE_HU[0] or high > POSSIBLE_HU[1]:
        raise ValueError(f"{name}: {extent}, which no CT in HU has.")
    if (air := _share(array, -np.inf, np.nextafter(AIR_HU, -np.inf))) < LEAST_AIR:
        raise ValueError(f"{name}: {extent}, only {air:.2%} below {AIR_HU:g}: a CT in HU has air, in and around lungs.")
    if (tissue := _share(array, *TISSUE_HU)) < LEAST_TISSUE:
        raise ValueError(
            f"{name}: {extent}, only {tissue:.2%} from {TISSUE_HU[0]:g} to {TISSUE_HU[1]:g}: a CT in HU has soft "
            "tissue there."
        )


def _share(array: np.ndarray, low: float, high: float) -> float:
    """Share of an array (x, y, z) from ``low`` to ``high``, both included, slice by slice to save memory."""
    return sum(np.count_nonzero((part >= low) & (part <= high)) for part in array.T) / array.size


def to_grey(hu: np.ndarray, window_hu: Sequence[float]) -> np.ndarray:
    """Map HU to float32 from 0 to 255 by a window (low, high), clipped and not rounded."""
    low, high = window_hu
    return (np.clip(hu.astype(np.float32), low, high) - np.float32(low)) * np.float32(255 / (high - low))


def to_hu(grey: np.ndarray, window_hu: Sequence[float]) -> np.ndarray:
    """Recover HU, float32, from grey values 0 to 255 of a window (low, high)."""
    low, high = window_hu
    return grey.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)


def _by(lengths: np.ndarray) -> str:
    return " x ".join(f"{length:.3g}" for length in lengths)
