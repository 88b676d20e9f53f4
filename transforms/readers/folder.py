"""A folder of images as a list of MONAI items."""

from __future__ import annotations

from os import PathLike
from pathlib import Path, PurePath
from typing import Any

from .decoding import is_dicom

RASTER_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
IMAGE_SUFFIXES = (*RASTER_SUFFIXES, *(f"{suffix}.gz" for suffix in RASTER_SUFFIXES), ".nii", ".nii.gz")


def image_suffix(path: str | PathLike[str]) -> str:
    """Return the suffix of a file name in small letters, both of them where the last is ``.gz`` (``a.ppm.gz``)."""
    name = PurePath(path)
    before = PurePath(name.stem).suffix if name.suffix.lower() == ".gz" else ""
    return (before + name.suffix).lower()


def image_stem(path: str | PathLike[str]) -> str:
    """Return a file's name without folder and suffix, which its outputs get: im0001 for ``im0001.ppm.gz``.

    Everything else is as with :attr:`pathlib.PurePath.stem`.
    """
    return PurePath(path).name[: -len(image_suffix(path)) or None]


def is_image(path: Path) -> bool:
    """True for a file with a known image suffix or .dcm, and for any with the DICOM prefix; hidden files are none."""
    if path.name.startswith(".") or not path.is_file():
        return False
    return image_suffix(path) in (*IMAGE_SUFFIXES, ".dcm") or is_dicom(path)


def find_images(folder: str) -> list[dict[str, Any]]:
    """List the images of a folder and those below as items ``{"image": path}``, in the order of their paths.

    An image is a file with a common image suffix or .dcm, or any file with the DICOM prefix. Hidden files are skipped.

    Raises:
        FileNotFoundError: no such folder, or no image in it.
    """
    return [{"image": str(path)} for path in _images_in(Path(folder), "**/*")]


def _images_in(root: Path, pattern: str) -> list[Path]:
    if not root.is_dir():
        raise FileNotFoundError(f"dataset_dir {root} is not a folder.")
    images = sorted(path for path in root.glob(pattern) if is_image(path))
    if not images:
        raise FileNotFoundError(f"dataset_dir {root} holds no image ({', '.join(RASTER_SUFFIXES)}, .nii or DICOM).")
    return images


def list_images(folder: str) -> list[dict[str, Any]]:
    """List the images of a folder as items ``{"image": path}``, in name order.

    An image is a file with a common image suffix or .dcm, or any file with the DICOM prefix. Hidden files are skipped,
    and so are the folders below.

    Raises:
        FileNotFoundError: no such folder, or no image in it.
    """
    return [{"image": str(path)} for path in _images_in(Path(folder), "*")]
