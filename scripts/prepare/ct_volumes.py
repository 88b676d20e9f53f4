"""Data sets of CT volumes whose axial slices are used: NIfTI files, DICOM series, SegTHOR."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from clinbundles.transforms.hu_labels import LABELLER, LEFT_LUNG, NAMES, RIGHT_LUNG, label_slice
from clinbundles.transforms.readers.ct_series import is_slice_file, patient_key
from clinbundles.transforms.readers.ct_volume import CTVolume, read_ct, read_labels, to_grey
from clinbundles.transforms.readers.decoding import is_nifti
from clinbundles.transforms.readers.folder import files_below

from .annotations import Omissions
from .series import Requirement, Series, Slice, SliceSet

# Least share of a picture that is lung, for --lung_only.
LEAST_LUNG = 0.001
# GT.nii.gz of SegTHOR, and the ids of a lung mask as lungmask writes it.
SEGTHOR_IDS = {"heart": 2, "aorta": 4, "trachea": 3, "oesophagus": 1}
MASK_RIGHT_LUNG, MASK_LEFT_LUNG = 1, 2
PEOPLE = "people"


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
    """CT volumes as NIfTI files (.nii, .nii.gz) below a folder; files of 8 bits are taken for masks and left out.

    Args:
        root: the folder.
        patients: regular expression, looked for in the path of a volume, whose first group names the patient; without
            it each folder in the data set, or file in it, is a patient.
        leave_out: patterns of the paths of volumes to leave out, such as "MIDRC*,*/scout.nii.gz".
        labels: automatic (by HU thresholds: body, left and right lung), none, or the name of a label map beside each
            volume, with ids in that order.
        window: HU that become black and white.
        lung_only: keep only slices of which at least 0.1 % are lung.
        trachea: let the automatic labels have the trachea as class 4; in pictures of 64 px it is hardly seen.
        licence: of the data.
    """
    files = [path for path in sorted(files_below(root)) if is_nifti(path)]
    files = [path for path in files if path.name != labels]
    if not files:
        raise FileNotFoundError(f"{root}: no folder with NIfTI files (.nii, .nii.gz) here.")
    omissions = Omissions()
    masks = {path for path in files if is_mask(path)}
    if len(masks) < len(files):
        for path in masks:
            omissions.add("files of 8 bits, which hold no HU", path.name)
        files = [path for path in files if path not in masks]
    return _ct_set(
        root, files, omissions, patients=patients, leave_out=leave_out, labels=labels, window=window,
        lung_only=lung_only, trachea=trachea, licence=licence,
    )  # fmt: skip


def ct_dicom(
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
    """CT volumes as DICOM series: each folder below, or the folder itself, that holds DICOM files is a series.

    Args:
        root: the folder.
        patients: regular expression, looked for in the path of a series, whose first group names the patient; without
            it PatientID tells patients apart, of which only a hash is kept meanwhile.
        leave_out: patterns of the paths of series to leave out.
        labels: automatic (by HU thresholds: body, left and right lung), none, or the name of a NIfTI label map in the
            folder of each series, with ids in that order.
        window: HU that become black and white.
        lung_only: keep only slices of which at least 0.1 % are lung.
        trachea: let the automatic labels have the trachea as class 4.
        licence: of the data.
    """
    folders = [folder for folder in (root, *sorted(root.rglob("*"))) if folder.is_dir() and first_slice(folder)]
    if not folders:
        raise FileNotFoundError(f"{root}: no folder with DICOM files here.")
    return _ct_set(
        root, folders, Omissions(), patients=patients, leave_out=leave_out, labels=labels, window=window,
        lung_only=lung_only, trachea=trachea, licence=licence,
    )  # fmt: skip


def segthor(root: Path, *, lungs: str = "automatic", oesophagus: bool = False, window: Any = (-1000, 600)) -> SliceSet:
    """SegTHOR: Patient_XX/Patient_XX.nii.gz with Patient_XX/GT.nii.gz; heart, aorta and trachea by people, and lungs.

    Args:
        root: the folder.
        lungs: automatic (by HU thresholds), or the name of a mask beside each volume: 1 right lung, 2 left lung.
        oesophagus: a class of its own; without it the oesophagus is background.
        window: HU that become black and white.
    """
    volumes = sorted(path for path in root.rglob("Patient_*.nii*") if path.name.partition(".")[0] == path.parent.name)
    if not volumes:
        raise FileNotFoundError(f"{root}: no folder Patient_XX with Patient_XX.nii.gz of SegTHOR here.")
    organs = [name for name in SEGTHOR_IDS if oesophagus or name != "oesophagus"]
    window_hu = parse_window(window)
    series = []
    for path in volumes:
        files = [path, path.with_name("GT.nii.gz"), *([] if lungs == "automatic" else [path.with_name(lungs)])]
        if missing := [file for file in files if not file.is_file()]:
            raise FileNotFoundError(f"{missing[0]}: no such file beside {path.name}.")
        label = partial(segthor_labels, files=files, organs=organs)
        name = path.relative_to(root).as_posix()
        series.append(Series(name, path.parent.name, partial(ct_slices, path, label, window_hu=window_hu), files))
    return SliceSet(
        name="SegTHOR",
        description="Axial CT of the thorax with organs at risk (Lambert et al., SegTHOR: segmentation of thoracic "
        "organs at risk in CT images, 2020)",
        licence="not open",
        modality="CT",
        series=series,
        labels=("background", *organs, "left lung", "right lung"),
        labeller=f"{PEOPLE}; lungs {LABELLER if lungs == 'automatic' else 'by ' + lungs}",
        window_hu=window_hu,
    )


def _ct_set(
    root: Path,
    sources: Sequence[Path],
    omissions: Omissions,
    *,
    patients: str | None,
    leave_out: str | None,
    labels: str,
    window: Any,
    lung_only: bool,
    trachea: bool,
    licence: str,
) -> SliceSet:
    """Make a set of CT volumes, each a NIfTI file or the folder of a series; see :func:`ct_nifti` for the flags.

    Raises:
        ValueError: a flag is wrong, or fits no volume.
    """
    window_hu = parse_window(window)
    if labels != "automatic" and trachea:
        raise ValueError("--trachea true is of --labels automatic: a label map of one's own has the ids that it has")
    if labels == "none" and lung_only:
        raise ValueError("--lung_only true needs labels, and --labels is none")
    names = {source: source.relative_to(root).as_posix() for source in sources}
    for pattern in (word.strip() for word in leave_out.split(",")) if leave_out else ():
        hits = [source for source, name in names.items() if fnmatchcase(name, pattern)]
        if not hits:
            raise ValueError(f"--leave_out {pattern}: no series goes by this name")
        for source in hits:
            omissions.add(f"series by --leave_out {pattern}", names.pop(source))
    series = []
    for source, name in names.items():
        own = (source if source.is_dir() else source.parent) / labels
        is_own = labels not in ("automatic", "none")
        label: Callable[[CTVolume], Iterator[np.ndarray | None]] = partial(automatic_labels, trachea=trachea)
        if labels == "none":
            label = no_labels
        elif is_own:
            label = partial(own_labels, path=own)
        files = [*(slices_in(source) if source.is_dir() else [source]), *([own] if is_own and own.is_file() else [])]
        patient = patient_of(source, name, patients)
        series.append(Series(name, patient, partial(ct_slices, source, label, window_hu=window_hu), files))
    classes = {"none": (), "automatic": NAMES[: 4 + trachea]}.get(labels, NAMES)
    return SliceSet(
        name=root.resolve().name,
        description="Axial slices of CT, in the radiological view",
        licence=licence,
        modality="CT",
        series=series,
        labels=classes,
        labeller={"none": None, "automatic": LABELLER}.get(labels, PEOPLE),
        window_hu=window_hu,
        requirement=Requirement(
            frozenset({LEFT_LUNG, RIGHT_LUNG}), LEAST_LUNG, "slices of which less than 0.1 % are lung"
        )
        if lung_only
        else None,
        omissions=omissions,
    )


def patient_of(source: Path, name: str, patients: str | None) -> str:
    """Tell whom a series is of.

    Raises:
        ValueError: the expression is none, or its group is not in the name.
    """
    if patients is None:
        key = patient_key(slices_in(source)[0]) if source.is_dir() else ""
        return key or name.partition("/")[0]
    try:
        match = re.search(patients, name)
    except re.error as error:
        raise ValueError(f"--patients {patients}: no regular expression ({error})") from error
    if match is None or not match.re.groups or not match[1]:
        raise ValueError(f"--patients {patients}: its first group finds nothing in {name}")
    return match[1]


def ct_slices(
    source: Path, label: Callable[[CTVolume], Iterator[np.ndarray | None]], *, window_hu: tuple[float, float]
) -> Iterator[Slice]:
    """Read the axial slices of a CT volume, towards the head, with their labels.

    Raises:
        ValueError: it is none, its pixels are not square, or the labels do not fit.
    """
    volume = read_ct(source)
    _, row_mm, column_mm = volume.spacing_mm
    if abs(row_mm - column_mm) > 0.01 * row_mm:
        raise ValueError(f"{source}: pixels of {column_mm:.3f} x {row_mm:.3f} mm are not square.")
    for k, (hu, labels) in enumerate(zip(volume.values, label(volume), strict=True)):
        position = volume.affine[2, 3] + k * volume.affine[2, 2]
        yield Slice(to_grey(hu, window_hu), labels, round(float(position), 3))


def automatic_labels(volume: CTVolume, *, trachea: bool) -> Iterator[np.ndarray]:
    """Label each slice of a volume by HU thresholds."""
    yield from (label_slice(hu, trachea=trachea) for hu in volume.values)


def no_labels(volume: CTVolume) -> Iterator[None]:
    """Leave each slice of a volume without labels."""
    yield from [None] * len(volume.values)


def own_labels(volume: CTVolume, *, path: Path) -> Iterator[np.ndarray]:
    """Read the label map of a volume from a NIfTI file."""
    yield from read_labels(path, volume, ids=range(len(NAMES)))


def segthor_labels(volume: CTVolume, *, files: Sequence[Path], organs: Sequence[str]) -> Iterator[np.ndarray]:
    """Join the organs of GT.nii.gz with the lungs, which are only where no organ is.

    Args:
        volume: the CT.
        files: its file, GT.nii.gz, and the mask of the lungs unless they are labelled by HU thresholds.
        organs: those that become classes, in the order of their ids from 1 on.
    """
    truth = read_labels(files[1], volume, ids=range(5))
    masks = read_labels(files[2], volume, ids=range(3)) if len(files) > 2 else None
    for k, organ_ids in enumerate(truth):
        if masks is None:
            own = label_slice(volume.values[k])
            left, right = own == LEFT_LUNG, own == RIGHT_LUNG
        else:
            left, right = masks[k] == MASK_LEFT_LUNG, masks[k] == MASK_RIGHT_LUNG
        labels = np.zeros_like(organ_ids)
        labels[left], labels[right] = len(organs) + 1, len(organs) + 2
        labels[organ_ids > 0] = 0
        for class_id, organ in enumerate(organs, start=1):
            labels[organ_ids == SEGTHOR_IDS[organ]] = class_id
        yield labels


def parse_window(window: Any) -> tuple[float, float]:
    """Check the HU that become black and white, as ``-1000,600`` gives them."""
    bounds = list(window) if isinstance(window, tuple | list) else [window]
    fits = all(isinstance(n, int | float) and not isinstance(n, bool) and np.isfinite(n) for n in bounds)
    if len(bounds) != 2 or not fits or bounds[0] >= bounds[1]:
        raise ValueError(f"--window is {window!r}: expected two HU, low and high, such as -1000,600")
    return bounds[0], bounds[1]


def is_mask(path: Path) -> bool:
    """Tell a NIfTI file of 8 bits by its header; a file that cannot be read is none, and is refused later."""
    try:
        return nibabel.load(path).get_data_dtype().itemsize == 1  # type: ignore[attr-defined]
    except Exception:  # the reader of volumes says what is wrong with it
        return False


def slices_in(folder: Path) -> list[Path]:
    """List the DICOM files of a folder."""
    return [path for path in sorted(folder.iterdir()) if is_slice_file(path)]


def first_slice(folder: Path) -> Path | None:
    """Find the first DICOM file of a folder."""
    return next((path for path in sorted(folder.iterdir()) if is_slice_file(path)), None)
