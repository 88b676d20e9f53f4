"""NIfTI files of one slice decoded to arrays, rows first, and what tells NIfTI and DICOM files from others.

No torch is needed here.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from .limits import TooLargeError, check_file, check_inflated, check_picture, sample_bytes


def is_dicom(path: Path) -> bool:
    """True if the file at ``path`` carries the DICOM prefix, whatever its name."""
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def is_nifti(path: Path) -> bool:
    """True if the file at ``path`` has the suffix of a NIfTI file."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read_nifti(path: Path) -> np.ndarray:
    """Read a NIfTI file of one slice, grey (H, W) or RGB (H, W, 3).

    Grey is (W, H) and any number of axes of length 1 behind it; RGB has at least one of these and then 3 channels, or
    the RGB data type. The axes are swapped and not turned by the affine, as MONAI's reader for NIfTI leaves them.

    Raises:
        ValueError: the file cannot be read, or is a volume.
    """
    with nifti_faults(path):
        image = open_nifti(path)
    stored = image.dataobj.dtype
    shape = (*image.shape, len(stored.names)) if stored.names else image.shape
    behind = shape[2:]
    channels = behind[-1:] if len(behind) > 1 and behind[-1] == 3 else ()
    if len(shape) < 2 or any(length != 1 for length in behind[: len(behind) - len(channels)]):
        raise ValueError(f"{path}: NIfTI of shape {shape}, expected one slice: (W, H), (W, H, 1) or (W, H, 1, 3).")
    is_plain = stored.kind == "u" and not is_scaled(image)
    bits = 8 if stored.names else 8 * stored.itemsize if is_plain else 64
    check_picture(path, *shape[:2], pixel_bytes=math.prod(channels) * sample_bytes(bits))
    with nifti_faults(path):
        values = np.asanyarray(image.dataobj)
    if stored.names:
        values = np.stack([values[name] for name in stored.names], axis=-1)
    return values.reshape(*shape[:2], *channels).swapaxes(0, 1)


@contextmanager
def nifti_faults(path: Path) -> Iterator[None]:
    """Name a NIfTI file in what is raised while it is opened or read.

    Raises:
        ValueError: in place of what its reader raises.
    """
    try:
        yield
    except TooLargeError:
        raise
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"{path}: not a readable NIfTI file ({error}).") from error


def open_nifti(path: Path) -> Any:
    """Open a NIfTI file, none of its voxels read yet, and see that it holds those that its header tells of.

    A file that is larger than the limit, or inflates to more, is refused. Of a gzip file the checksum is compared,
    which readers that stop at the last voxel pass over.

    Raises:
        TooLargeError: it is so.
        ImageFileError, OSError, EOFError, ValueError, zlib.error: the file is broken.
    """
    check_file(path)
    length = path.stat().st_size
    if path.suffix.lower() == ".gz":
        length = 0
        with gzip.open(path) as stream:
            while part := stream.read(1 << 20):
                length += len(part)
                check_inflated(path, length)
    try:
        image: Any = nibabel.load(path)
    except HeaderDataError as error:
        raise ImageFileError(str(error)) from error
    voxels = image.dataobj
    # Before memory is taken for them.
    if (expected := voxels.offset + math.prod(map(int, voxels.shape)) * voxels.dtype.itemsize) > length:
        raise ValueError(f"its header tells of {expected} bytes, and it holds {length}")
    return image


def is_scaled(image: Any) -> bool:
    """Tell whether the values of a NIfTI image are the stored ones times a slope, plus an intercept."""
    return (float(image.dataobj.slope), float(image.dataobj.inter)) != (1.0, 0.0)


def check_range(intensity_range: Sequence[float] | None) -> None:
    """Refuse what is no pair of numbers, the lower one first."""
    if intensity_range is None:
        return
    bounds = list(intensity_range) if isinstance(intensity_range, Sequence) else []
    numbers = [n for n in bounds if isinstance(n, int | float) and np.isfinite(n)]
    if len(bounds) != 2 or len(numbers) != 2 or bounds[0] >= bounds[1]:
        raise ValueError(f"intensity_range is {intensity_range!r}: expected two numbers, low and high.")
