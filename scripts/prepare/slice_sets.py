"""Data sets of slices: CT volumes as NIfTI files or DICOM series, CT slices as pictures, crops of nuclei."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from clinbundles.transforms.hu_labels import LABELLER, NAMES, label_slice
from clinbundles.transforms.readers.ct import read_ct, to_grey

from .annotations import Omissions
from .cells import bowl2018_records, union_of_masks
from .pairs import own_folder
from .slices import Series, Slice, SliceSet

LEAST_LUNG, LEAST_NUCLEUS = 0.001, 0.01


def ct_nifti(
    root: Path,
    *,
    patients: str | None = None,
    leave_out: str | None = None,
    labels: str = "automatic",
    window: Any = (-1000, 600),
    lung_only: bool = False,
    trachea: bool = False,
    licence: str = "not stated",
) -> SliceSet:
    """CT volumes as NIfTI files, one below each folder, or one beside the other.

    Args:
        root: the folder.
        patients: regular expression, found in the path of a volume, whose first group names the patient.
        leave_out: patterns.
        labels: automatic or none.
        window: HU.
        lung_only: keep.
        trachea: label it.
        licence: of the data.
    """
    files = [f for f in sorted(root.rglob("*.nii*")) if not f.name.startswith(("lung_auto",))]
    series = []
    for path in files:
        name = path.relative_to(root).as_posix()
        if leave_out and any(fnmatchcase(name, p) for p in leave_out.split(",")):
            continue
        match = re.search(patients, name) if patients else None
        patient = match[1] if match else name
        series.append(Series(name, patient, partial(ct_slices, path, window=window, trachea=trachea, labels=labels), [path]))
    names = NAMES if trachea else NAMES[:-1]
    return SliceSet(
        name=root.resolve().name, description="Axial slices of CT", licence=licence, modality="CT", series=series,
        labels=names, labeller=LABELLER, window_hu=tuple(window),
        keep=(frozenset({2, 3}), LEAST_LUNG, "without lung") if lung_only else None,
    )


def ct_slices(source: Path, *, window: Sequence[float], trachea: bool, labels: str) -> Iterator[Slice]:
    volume = read_ct(source)
    for k, hu in enumerate(volume.values):
        yield Slice(to_grey(hu, window), label_slice(hu, trachea=trachea), round(float(volume.affine[2, 3] + k * volume.affine[2, 2]), 3))


def bowl2018_crops(root: Path) -> SliceSet:
    """Crops of the dark grey images (fluorescence) of the Data Science Bowl 2018, nuclei as one class."""
    folder = own_folder(root, "stage1_train", holds="*/images/*.png")
    omissions = Omissions()
    series = []
    for record in bowl2018_records(folder):
        with Image.open(record.image) as image:
            pixels = np.asarray(image.convert("RGB"))
        if not (pixels == pixels[..., :1]).all() or pixels.mean() >= 128:
            omissions.add("images in colour or of a bright ground", record.image.name)
            continue
        masks = record.image.parents[1] / "masks"
        series.append(Series(record.group, record.group, partial(nuclei_slice, pixels[..., 0], masks), [record.image]))
    return SliceSet(
        name="BOWL2018 crops", description="", licence="CC0", modality="fluorescence microscopy", series=series,
        labels=("background", "nucleus"), labeller="people", crops=True, omissions=omissions,
        keep=(frozenset({1}), LEAST_NUCLEUS, "crops with less than 1 % of nucleus"),
    )


def nuclei_slice(pixels: np.ndarray, masks: Path) -> Iterator[Slice]:
    yield Slice(pixels, union_of_masks(masks).astype(np.uint8), 0)
