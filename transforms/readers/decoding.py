"""Image files decoded to arrays, rows first: raster images, one NIfTI slice; DICOM images are in :mod:`.dicom`.

No torch is needed here.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from PIL import Image, UnidentifiedImageError

PIL_8BIT_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}


def is_dicom(path: Path) -> bool:
    """True if the file at ``path`` carries the DICOM prefix, whatever its name."""
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def is_nifti(path: Path) -> bool:
    """True if the file at ``path`` has the suffix of a NIfTI file."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def open_image(path: Path, *, decode_size: int | None = None, single_frame: Sequence[str] = ("GIF",)) -> Image.Image:
    """Decode the image file at ``path``, gzip-compressed or not, completely, or raise ``ValueError`` naming it.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size as long as both sides keep ``decode_size`` px. More than one frame
    is refused in the formats named by ``single_frame``, and only the first is decoded in others. A TIFF whose second
    frame has the size of the first is a stack, or has a frame for each channel, and is refused too; smaller frames
    behind the first are those of a pyramid.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        with Image.open(io.BytesIO(content)) as image:
            frames = getattr(image, "n_frames", 1)
            if image.format not in single_frame and not (frames > 1 and _is_stack(image)):
                frames = 1
            if decode_size is not None:
                image.draft(image.mode, (decode_size, decode_size))
            image.load()
    except Exception as error:  # Pillow's plug-ins raise types of their own, and name the stream, which says nothing
        reason = "no known format" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"{path}: not a readable image file ({reason}).") from error
    if frames != 1:
        raise ValueError(f"{path}: a {image.format} of {frames} frames, expected one.")
    return image


def _is_stack(image: Image.Image) -> bool:
    """Tell a TIFF of several frames of one size; leave the image at its first frame."""
    if image.format != "TIFF":
        return False
    first = image.size
    image.seek(1)
    second = image.size
    image.seek(0)
    return first == second


def read_nifti(path: Path) -> np.ndarray:
    """Read a NIfTI file of one slice, grey (H, W) or RGB (H, W, 3).

    Grey is (W, H) and any number of axes of length 1 behind it; RGB has at least one of these and then 3 channels, or
    the RGB data type. The axes are swapped and not turned by the affine, as MONAI's reader for NIfTI leaves them.

    Raises:
        ValueError: the file cannot be read, or is a volume.
    """
    try:
        values = np.asanyarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"{path}: not a readable NIfTI file ({error}).") from error
    if values.dtype.names:
        values = np.stack([values[name] for name in values.dtype.names], axis=-1)
    behind = values.shape[2:]
    channels = behind[-1:] if len(behind) > 1 and behind[-1] == 3 else ()
    if values.ndim < 2 or any(length != 1 for length in behind[: len(behind) - len(channels)]):
        raise ValueError(
            f"{path}: NIfTI of shape {values.shape}, expected one slice: (W, H), (W, H, 1) or (W, H, 1, 3)."
        )
    return values.reshape(*values.shape[:2], *channels).swapaxes(0, 1)


def check_range(intensity_range: Sequence[float] | None) -> None:
    """Refuse what is no pair of numbers, the lower one first."""
    if intensity_range is None:
        return
    bounds = list(intensity_range) if isinstance(intensity_range, Sequence) else []
    numbers = [n for n in bounds if isinstance(n, int | float) and np.isfinite(n)]
    if len(bounds) != 2 or len(numbers) != 2 or bounds[0] >= bounds[1]:
        raise ValueError(f"intensity_range is {intensity_range!r}: expected two numbers, low and high.")
