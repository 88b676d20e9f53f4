"""One DICOM series of CT slices as one array in HU, or a sentence on why it is none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom

from .decoding import is_dicom
from .dicom import check_deflated, check_pixels, decode_pixels, is_bare_dicom, read_fields, silent_pydicom
from .limits import check_bytes

GEOMETRY = ("SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
DISTANCES = ("SpacingBetweenSlices", "SliceThickness")
# Share of the distance between slices by which one may be off, and what counts as no distance, in mm.
TOLERANCE, SAME_MM = 0.1, 0.01
RAS_OF_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_series(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray, str]:
    """Read the slices of a series, in the order in which they lie.

    Args:
        paths: the files, or the one folder that they are in.

    Returns:
        HU (column, row, slice), the affine from these to mm towards right, anterior and superior as in NIfTI, and what
        to call the series in a message.

    Raises:
        ValueError: the files are not one series of CT slices at one distance.
    """
    name = str(paths[0] if len(paths) == 1 else paths[0].parent)
    files = slice_files(paths[0]) if len(paths) == 1 and paths[0].is_dir() else list(paths)
    with silent_pydicom():
        slices = _read_slices(files, name)
        check_alike(files, slices, name)
        affine, order = geometry(files, slices, name)
        is_whole = all(_has_whole_hu(dataset) for dataset in slices)
        array = np.empty((len(order), slices[0].Rows, slices[0].Columns), dtype=np.int32 if is_whole else np.float32)
        for place, k in enumerate(order):
            array[place] = in_hu(files[k], slices[k])
            del slices[k].PixelData  # all of them beside the array would be half as much again
    return array.transpose(2, 1, 0), RAS_OF_LPS @ affine, name


def _read_slices(files: Sequence[Path], name: str) -> list[pydicom.Dataset]:
    """Read the files of slices, as long as they all together keep within the limit, in pixels and in bytes."""
    slices, number = [], 0
    for path in files:
        slices.append(dataset := read_slice(path))
        number += max(2 * dataset.Rows * dataset.Columns, len(dataset.PixelData))
        check_bytes(name, number, f"the series, up to slice {len(slices)} of {len(files)},")
    return slices


def slice_files(folder: Path) -> list[Path]:
    """List the DICOM files of a folder; files of another kind, and DICOMDIR, are passed over.

    Raises:
        ValueError: there is none.
    """
    files = [path for path in sorted(folder.iterdir()) if is_slice_file(path)]
    if not files:
        raise ValueError(f"{folder}: no DICOM file in this folder.")
    return files


def is_slice_file(path: Path) -> bool:
    """Tell whether a file of a folder is taken for a slice: DICOM by its content, or called .dcm, and no DICOMDIR."""
    if not path.is_file() or path.name.startswith(".") or path.name == "DICOMDIR":
        return False
    return path.suffix.lower() == ".dcm" or is_dicom(path) or is_bare_dicom(path)


def read_slice(path: Path) -> pydicom.Dataset:
    """Read a file that holds one CT slice with its place in the patient.

    Raises:
        ValueError: it does not.
    """
    if not is_dicom(path) and not is_bare_dicom(path):
        raise ValueError(f"{path}: neither a NIfTI nor a DICOM file.")
    dataset = read_fields(path, more=(*GEOMETRY, *DISTANCES))
    if dataset.get("Modality") != "CT":
        raise ValueError(f"{path}: Modality is {str(dataset.get('Modality', 'missing'))[:16]!r}, expected 'CT'.")
    check_pixels(path, dataset)
    if dataset.SamplesPerPixel != 1 or dataset.PhotometricInterpretation != "MONOCHROME2":
        raise ValueError(f"{path}: PhotometricInterpretation is {dataset.PhotometricInterpretation[:16]!r}, not HU.")
    for field, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        if len(numbers(dataset, field)) != count:
            raise ValueError(f"{path}: {field} is missing or not {count} numbers, so the slice has no place.")
    if min(numbers(dataset, "PixelSpacing")) <= 0:
        raise ValueError(f"{path}: PixelSpacing is {numbers(dataset, 'PixelSpacing').tolist()}, expected mm.")
    if missing := [name for name in ("RescaleSlope", "RescaleIntercept") if len(numbers(dataset, name)) != 1]:
        raise ValueError(f"{path}: {missing[0]} is missing, so the stored values cannot be turned into HU.")
    return dataset


def numbers(dataset: pydicom.Dataset, field: str) -> np.ndarray:
    """Take the finite numbers of a field, float64 (N,); none where it is missing or holds anything else."""
    try:
        values = np.atleast_1d(np.asarray(dataset.get(field), dtype=np.float64))
    except (TypeError, ValueError):
        return np.zeros(0)
    return values if np.isfinite(values).all() else np.zeros(0)


def check_alike(files: Sequence[Path], slices: Sequence[pydicom.Dataset], name: str) -> None:
    """Refuse slices that are not of one series, one size and one orientation.

    Raises:
        ValueError: it is so.
    """
    series = {str(dataset.get("SeriesInstanceUID", "")) for dataset in slices}
    if len(series) > 1:
        raise ValueError(f"{name}: {len(series)} series (SeriesInstanceUID) in {len(files)} files, expected one.")
    first = slices[0]
    for path, dataset in zip(files, slices, strict=True):
        if (dataset.Rows, dataset.Columns) != (first.Rows, first.Columns):
            raise ValueError(
                f"{path}: {dataset.Columns}x{dataset.Rows} px, {files[0].name} of the same series has "
                f"{first.Columns}x{first.Rows}."
            )
        for field, tolerance in (("ImageOrientationPatient", 1e-3), ("PixelSpacing", 1e-4)):
            if not np.allclose(numbers(dataset, field), numbers(first, field), atol=tolerance):
                raise ValueError(
                    f"{path}: {field} is {_listed(numbers(dataset, field))}, in {files[0].name} of the same series it "
                    f"is {_listed(numbers(first, field))}."
                )


def geometry(files: Sequence[Path], slices: Sequence[pydicom.Dataset], name: str) -> tuple[np.ndarray, list[int]]:
    """Find the affine of slices from (column, row, slice) to DICOM's mm (4, 4), and their order.

    Raises:
        ValueError: the directions are none, two slices are at one place, or one is missing.
    """
    along_row, along_column = numbers(slices[0], "ImageOrientationPatient").reshape(2, 3)
    lengths = np.linalg.norm([along_row, along_column], axis=1)
    if not np.allclose([*lengths, along_row @ along_column], [1, 1, 0], atol=1e-2):
        raise ValueError(f"{files[0]}: ImageOrientationPatient is no pair of directions at right angles.")
    normal = np.cross(along_row, along_column)
    positions = np.stack([numbers(dataset, "ImagePositionPatient") for dataset in slices])
    order = np.argsort(positions @ normal, kind="stable").tolist()
    row_mm, column_mm = numbers(slices[0], "PixelSpacing")
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = along_row * column_mm, along_column * row_mm
    affine[:3, 2], affine[:3, 3] = step_between(positions[order], normal, slices, name), positions[order[0]]
    return affine, order


def step_between(positions: np.ndarray, normal: np.ndarray, slices: Sequence[pydicom.Dataset], name: str) -> np.ndarray:
    """Find the one step, float64 (3,) in mm, from a slice to the next.

    Args:
        positions: float64 (slices, 3), sorted along ``normal``.
        normal: of the slices, float64 (3,).
        slices: their fields, which may state the distance.
        name: what to call the series in a message.

    Raises:
        ValueError: there is no one step.
    """
    stated = [numbers(slices[0], field) for field in DISTANCES]
    between = float(stated[0][0]) if len(stated[0]) == 1 and stated[0][0] > 0 else None
    if len(positions) == 1:
        thickness = between or (float(stated[1][0]) if len(stated[1]) == 1 and stated[1][0] > 0 else None)
        if thickness is None:
            raise ValueError(f"{name}: one slice without SliceThickness, so it has no extent.")
        return normal * thickness
    places = positions @ normal
    steps = np.diff(places)
    if (same := int(np.argmin(steps))) is not None and steps[same] < SAME_MM:
        raise ValueError(f"{name}: two slices at {places[same]:.2f} mm, expected one at each place.")
    step = float(np.median(steps))
    uneven = np.flatnonzero(np.abs(steps - step) > TOLERANCE * step)
    if len(uneven):
        at = int(uneven[0])
        raise ValueError(
            f"{name}: {steps[at]:.2f} mm from the slice at {places[at]:.2f} mm to the next, {step:.2f} mm between most "
            f"of the {len(places)}: is a slice missing?"
        )
    if between is not None and abs(between - step) > TOLERANCE * step:
        raise ValueError(f"{name}: slices {step:.2f} mm apart, SpacingBetweenSlices says {between:.2f}.")
    return (positions[-1] - positions[0]) / (len(positions) - 1)


def in_hu(path: Path, dataset: pydicom.Dataset) -> np.ndarray:
    """Decode the HU (row, column) of a slice: int32 where slope and intercept are whole numbers, else float32."""
    values = decode_pixels(path, dataset)
    slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
    if _has_whole_hu(dataset):
        return values.astype(np.int32) * int(slope) + int(intercept)
    return values.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _has_whole_hu(dataset: pydicom.Dataset) -> bool:
    return float(dataset.RescaleSlope).is_integer() and float(dataset.RescaleIntercept).is_integer()


def patient_key(path: Path) -> str:
    """Tell the patient of a DICOM file from others by a hash, so that no name is kept; empty where there is no id."""
    with silent_pydicom():
        check_deflated(path)
        patient = str(pydicom.dcmread(path, specific_tags=["PatientID"], force=True).get("PatientID") or "")
    return hashlib.sha256(patient.encode()).hexdigest() if patient else ""


def _listed(values: np.ndarray) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
