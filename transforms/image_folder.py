"""A folder of images as a list of MONAI items, with recorded gaze where there is some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .gaze_readers import read_fixations
from .image_reader import is_dicom

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")


def list_images(folder: str, *, gaze_file: str | None = None, gaze_format: str = "auto") -> list[dict[str, Any]]:
    """Folder in; one item ``{"image": path}`` an image out, in name order, with ``"fixations"`` where gaze is known.

    An image is a file with a common image suffix, or any file with the DICOM prefix. Hidden files are skipped.

    Args:
        folder: the folder (not searched below).
        gaze_file: one recording, see :func:`clinbundles.transforms.gaze_readers.read_fixations`.
        gaze_format: its format.

    Raises:
        FileNotFoundError: no such folder, or no image in it.
        ValueError: two images that differ only in their suffix (their outputs would overwrite each other), or gaze for
            none of the images.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"dataset_dir {root} is not a folder.")
    files = sorted(p for p in root.iterdir() if p.is_file() and not p.name.startswith("."))
    images = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES or is_dicom(p)]
    if not images:
        raise FileNotFoundError(f"dataset_dir {root} holds no image ({', '.join(IMAGE_SUFFIXES)} or DICOM).")
    by_stem: dict[str, Path] = {}
    for path in images:
        if path.stem in by_stem:
            raise ValueError(f"{by_stem[path.stem]} and {path.name} would write outputs of the same name.")
        by_stem[path.stem] = path
    items: list[dict[str, Any]] = [{"image": str(p)} for p in images]
    if gaze_file is None:
        return items
    gaze = read_fixations(gaze_file, gaze_format=gaze_format)
    matched = [item for item in items if Path(item["image"]).name in gaze]
    if not matched:
        raise ValueError(f"{gaze_file}: gaze for none of the {len(items)} images in {root}.")
    for item in matched:
        item["fixations"] = [gaze[Path(item["image"]).name].tolist()]
    return items
