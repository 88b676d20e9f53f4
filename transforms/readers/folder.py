"""A folder of images as a list of MONAI items."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path, PurePath
from typing import Any

from .decoding import is_dicom

RASTER_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".webp", ".jp2", ".avif")
# What the files begin with that are images whatever their names.
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x0cjP  ")
IMAGE_SUFFIXES = (*RASTER_SUFFIXES, *(f"{suffix}.gz" for suffix in RASTER_SUFFIXES), ".nii", ".nii.gz")


def image_suffix(path: str | PathLike[str]) -> str:
    """Return the suffix of a file name in small letters, both of them where the last is ``.gz`` (``a.ppm.gz``).

    What follows the last dot is no suffix if it is a number, as in the UID of a DICOM file.
    """
    name = PurePath(path)
    if name.suffix[1:].isdecimal():
        return ""
    before = PurePath(name.stem).suffix if name.suffix.lower() == ".gz" else ""
    return (before + name.suffix).lower()


def image_stem(path: str | PathLike[str]) -> str:
    """Return a file's name without folder and suffix, which its outputs get: im0001 for ``im0001.ppm.gz``.

    Everything else is as with :attr:`pathlib.PurePath.stem`.
    """
    return PurePath(path).name[: -len(image_suffix(path)) or None]


def is_image(path: Path) -> bool:
    """True for a file with a known image suffix or .dcm, and any that begins as an image; hidden files are none."""
    if path.name.startswith(".") or not path.is_file():
        return False
    if image_suffix(path) in (*IMAGE_SUFFIXES, ".dcm"):
        return True
    with path.open("rb") as stream:
        start = stream.read(12)
    return start.startswith(_STARTS) or (start[:4] == b"RIFF" and start[8:] == b"WEBP") or is_dicom(path)


def find_images(folder: str) -> list[dict[str, Any]]:
    """List the images of a folder and those below as items ``{"image": path}``, in the order of their paths.

    An image is a file with a common image suffix or .dcm, or any that begins as one. Hidden files and folders are
    skipped, and a folder that is linked in is read as one that lies there.

    Raises:
        FileNotFoundError: no such folder, or no image in it.
    """
    return [{"image": str(path)} for path in _images(Path(folder), files_below(Path(folder)))]


def files_below(root: Path) -> Iterator[Path]:
    """Give the files of a folder and those below, linked folders too, each folder once; hidden ones are skipped."""
    visited: set[str] = set()
    for parent, folders, names in os.walk(root, followlinks=True):
        if (real := os.path.realpath(parent)) in visited:  # a link to a folder above goes round for ever
            folders.clear()
            continue
        visited.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _images(root: Path, files: Iterable[Path]) -> list[Path]:
    if not root.is_dir():
        raise FileNotFoundError(f"dataset_dir {root} is not a folder.")
    images = sorted(path for path in files if is_image(path))
    if not images:
        kinds = f"{', '.join(RASTER_SUFFIXES)}, .nii, .nii.gz or DICOM"
        raise FileNotFoundError(f"dataset_dir {root} holds no image ({kinds}){_deeper(root)}.")
    return images


def _deeper(root: Path) -> str:
    """Say how many images lie in the folders below one that has none, if any do."""
    deeper = sorted(path.relative_to(root) for path in files_below(root) if is_image(path))
    if not deeper:
        return ""
    return f" itself, but {len(deeper)} lie deeper, such as {deeper[0].as_posix()}: give the folder that holds them"


def rest_below(folder: str, items: Sequence[Mapping[str, Any]]) -> str:
    """Say how many images lie in the folders below one, and are not among those that were listed of it.

    Args:
        folder: that was listed.
        items: ``{"image": path}``, also of a folder that is one image, as of a CT series.

    Returns:
        such as "8 images in 2 subfolders are not looked at", or "" where there are none.
    """
    root, listed = Path(folder), {Path(item["image"]) for item in items}
    rest = [path for path in files_below(root) if path.parent != root and not {path, path.parent} & listed]
    folders = [path.parent for path in rest if is_image(path)]
    if not folders:
        return ""
    return f"{len(folders)} images in {len(set(folders))} subfolders are not looked at"


def list_images(folder: str) -> list[dict[str, Any]]:
    """List the images of a folder as items ``{"image": path}``, in name order.

    As :func:`find_images`, but without the folders below.

    Raises:
        FileNotFoundError: no such folder, or no image in it.
    """
    return [{"image": str(path)} for path in _images(Path(folder), Path(folder).glob("*"))]
