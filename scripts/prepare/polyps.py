"""Data sets of colonoscopy frames with polyp masks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from clinbundles.transforms.readers.folder import image_stem

from .original_sizes import sizes_in_boxes
from .pairs import DataSet, Record, own_folder, pair_by_name
from .recordings import gaze_files

POLYPS: dict[str, Any] = {"label": "polyp", "modality": "endoscopy", "ratios": (6, 2, 2)}


def kvasir_seg(root: Path, *, gaze: str | None = None, **reading: Any) -> DataSet:
    """Kvasir-SEG: images/ and masks/ with the same names; the official split is train.txt (880) and val.txt (120).

    Its list of boxes (kavsir_bboxes.json) tells the original sizes, which the width of a fixation refers to.

    Args:
        root: folder of the data set, or the one above it.
        gaze: recorded gaze: a file, or a glob of files, one for each observer.
        reading: how to read them, see :func:`clinbundles.scripts.prepare.recordings.gaze_files`.
    """
    folder = own_folder(root, "Kvasir-SEG", holds="images")
    sizes = sizes_in_boxes(folder)
    pairs = pair_by_name(folder / "images", folder / "masks")
    return DataSet(
        folder,
        name="Kvasir-SEG",
        description="Colonoscopy frames with polyp masks (Jha et al., Kvasir-SEG: a segmented polyp dataset, 2020)",
        licence="research and education only",
        records=[replace(record, original_size=sizes.get(image_stem(record.path))) for record in pairs],
        gaze=gaze_files(gaze, **reading),
        **POLYPS,
    )


def polypgen(root: Path, *, gaze: str | None = None, **reading: Any) -> DataSet:
    """PolypGen, single frames: data_C*/images_C* and data_C*/masks_C*, where the name of a mask ends in _mask.

    Args:
        root: folder of the data set, or the one above it.
        gaze: recorded gaze: a file, or a glob of files, one for each observer.
        reading: how to read them, see :func:`clinbundles.scripts.prepare.recordings.gaze_files`.
    """
    folder = own_folder(root, "PolypGen2021_MultiCenterData_v3", holds="data_C*")
    centres = sorted(path.name.removeprefix("data_") for path in folder.glob("data_C*") if path.is_dir())
    if not centres:
        raise FileNotFoundError(f"{folder}: no folder data_C1, data_C2, ... of PolypGen here")
    return DataSet(
        folder,
        name="PolypGen",
        description="Colonoscopy frames of several centres with polyp masks (Ali et al., A multi-centre polyp "
        "detection and segmentation dataset for generalisability assessment, 2023)",
        licence="CC BY 4.0",
        records=[record for centre in centres for record in polypgen_centre(folder, centre)],
        gaze=gaze_files(gaze, **reading),
        **POLYPS,
    )


def polypgen_centre(folder: Path, centre: str) -> Iterator[Record]:
    """Pair the frames and masks of one centre of PolypGen, such as C1."""
    data = folder / f"data_{centre}"
    pairs = pair_by_name(
        data / f"images_{centre}",
        data / f"masks_{centre}",
        mask_ending="_mask",
        group=lambda stem: polypgen_group(stem, centre=centre),
    )
    return (replace(record, source=centre) for record in pairs)


def polypgen_group(stem: str, *, centre: str) -> str:
    """Name the group of a PolypGen frame: centre and patient or sequence, or else the frame's own name.

    ``102OLCV1_100H0006`` of C1 is of ``C1_102OLCV1``, ``14_endocv2021_positive_902`` of C4 is of ``C4_14``. The other
    centres number their frames throughout.

    Args:
        stem: file name of the frame without suffix.
        centre: such as C1.
    """
    match = re.match(r"(\d+OLCV\d+)_|(\d+)_endocv2021_", stem)
    return f"{centre}_{match[1] or match[2]}" if match else stem
