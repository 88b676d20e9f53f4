"""The series of a study that a bundle reads: chosen by what the bundle says of its input, and refused in one sentence.

The SDK of MONAI Deploy is not needed here.
"""

from __future__ import annotations

import filecmp
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    EnhancedCTImageStorage,
    MediaStorageDirectoryStorage,
    OphthalmicPhotography8BitImageStorage,
    OphthalmicPhotography16BitImageStorage,
    VLWholeSlideMicroscopyImageStorage,
)

from clinbundles.transforms.readers.ct_series import is_slice_file
from clinbundles.transforms.readers.decoding import is_dicom
from clinbundles.transforms.readers.dicom import check_deflated, is_bare_dicom, silent_pydicom
from clinbundles.transforms.readers.folder import files_below
from clinbundles.transforms.readers.pydicom_api import deflated_part

# What this module's results are called, so that they are not taken for images when a study is read again.
MANUFACTURER = "clinbundles"
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
GREYS = ("MONOCHROME1", "MONOCHROME2")
PIXELS = (b"\xe0\x7f", b"\x7f\xe0")  # group 7FE0, in either order of bytes
# Classes whose files hold frames, be it one: libraries that write results expect the fields of frames in them.
OF_FRAMES = (
    OphthalmicPhotography8BitImageStorage,
    OphthalmicPhotography16BitImageStorage,
    VLWholeSlideMicroscopyImageStorage,
    EnhancedCTImageStorage,
)
IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")


@dataclass(frozen=True)
class Rule:
    """Which series a bundle can read.

    Attributes:
        name: what they are called in a message.
        modalities: one of them; none means any.
        photometric: one of them.
        impossible: none of them, where any other is taken.
        as_volume: all instances are slices of one volume, and not an image each.
    """

    name: str
    modalities: tuple[str, ...]
    photometric: tuple[str, ...]
    impossible: tuple[str, ...] = ()
    as_volume: bool = False

    def takes(self, dataset: Dataset) -> bool:
        """Tell whether an instance is of that kind."""
        modality = str(dataset.get("Modality") or "")
        is_possible = modality in self.modalities if self.modalities else modality not in self.impossible
        return is_possible and (dataset.get("PhotometricInterpretation") in self.photometric)


NO_PHOTOGRAPH = ("CT", "MR", "PT", "US", "CR", "DX", "MG")
# Modality of DICOM by what metadata.json calls the images that a bundle was trained on.
TRAINED_ON = {"endoscopy": ("ES",), "microscopy": ("SM", "GM"), "fundus photograph": ("OP",)}
# The reader of the bundle decides after that, by all that the file says.
RULES = {
    "hounsfield": Rule("CT", ("CT",), GREYS, as_volume=True),
    "magnitude": Rule("chest X-ray (CR, DX, DR, RG or secondary capture)", ("CR", "DX", "DR", "RG", "OT", "SC", ""),
                      (*GREYS, *COLOURS)),
    "RGB": Rule(f"colour image (Modality none of {', '.join(NO_PHOTOGRAPH)})", (), COLOURS, impossible=NO_PHOTOGRAPH),
}  # fmt: skip


def rule_of(metadata: Mapping[str, Any]) -> Rule:
    """Find the rule for a bundle by the format of its input in metadata.json.

    Raises:
        ValueError: there is no rule for it.
    """
    try:
        image = metadata["network_data_format"]["inputs"]["image"]["format"]
    except (KeyError, TypeError):
        image = None
    if image not in RULES:
        raise ValueError(f"metadata.json: the format of the input is {image!r}, expected one of {', '.join(RULES)}.")
    return RULES[image]


def foreign_modalities(metadata: Mapping[str, Any], images: Iterable[Dataset]) -> str:
    """Say which images are taken for what a bundle was trained on, though their Modality is another; else nothing."""
    kind = metadata["network_data_format"]["inputs"]["image"].get("modality")
    own = TRAINED_ON.get(kind)
    others = sorted({str(image.get("Modality") or "missing") for image in images} - set(own or ()))
    return f"images of Modality {', '.join(others)} were taken for {kind} ({', '.join(own)})" if own and others else ""


def read_headers(folder: Path) -> list[Dataset]:
    """Read the DICOM files of a folder and those below, without their pixels; files of another kind are passed over.

    Those without preamble are read too, as the bundles' readers do.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: one is broken. The sentence has no file name, which may be that of a patient.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder.")
    paths = sorted(path for path in files_below(folder) if is_slice_file(path))
    datasets: list[Dataset] = []
    with silent_pydicom():
        for number, path in enumerate(paths, start=1):
            try:
                datasets.append(_read_header(path))
            except Exception as error:  # damage of any kind; pydicom's own text may quote the value of a field
                why = str(error) if isinstance(error, _BrokenError) else f"cannot be read ({type(error).__name__})"
                raise ValueError(
                    f"{folder}: DICOM file {number} of {len(paths)}, in the order of their names, {why}; replace it or "
                    "take it away."
                ) from None
    return datasets


class _BrokenError(ValueError):
    """What is wrong with a DICOM file."""


def _read_header(path: Path) -> Dataset:
    """Read a DICOM file as far as its pixels, which an image has to have."""
    bare = is_bare_dicom(path)
    if not is_dicom(path) and not bare:
        raise _BrokenError("is called .dcm and is no DICOM file, or ends within its first bytes")
    check_deflated(path)
    with path.open("rb") as stream:
        dataset = dcmread(stream, stop_before_pixels=True, force=bare)
        has_pixels = stream.read(2) in PIXELS or bool(deflated_part(path))
    kind = UID(str(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or ""))
    if not kind:
        raise _BrokenError("has no SOPClassUID, so nobody knows what it is, or ends before it")
    if not has_pixels and ("Rows" in dataset or "Image Storage" in kind.name):
        raise _BrokenError("is an image that ends before its pixels")
    if not has_pixels and "SeriesInstanceUID" not in dataset and kind != MediaStorageDirectoryStorage:
        raise _BrokenError("has no SeriesInstanceUID, or ends before it")
    dataset.filename = str(path)
    return dataset


def choose_series(datasets: Iterable[Dataset], rule: Rule, place: str, *, series: str | None = None) -> list[Dataset]:
    """Choose the one series that a bundle can read.

    Args:
        datasets: instances of a study, of any kind.
        rule: which are taken.
        place: what to call the study in a message.
        series: SeriesInstanceUID, where several would be taken.

    Returns:
        the instances of the series, by their number and then their UID.

    Raises:
        ValueError: none is taken or more than one, several studies or patients are mixed, instances of the series are
            of different kinds or sizes, or different ones have one UID.
    """
    every = [each for each in datasets if is_foreign_image(each)]
    groups: dict[str, list[Dataset]] = {}
    for dataset in every:
        groups.setdefault(str(dataset.get("SeriesInstanceUID", "")), []).append(dataset)
    if series is not None and series not in groups:
        raise ValueError(f"{place}: holds no series {series} of images.")
    taken = {uid: group for uid, group in groups.items() if any(map(rule.takes, group)) and series in (None, uid)}
    if rule.as_volume:  # a localizer is no volume
        taken = {
            uid: rest for uid, group in taken.items() if (rest := [each for each in group if not _localizes(each)])
        }
    if not taken:
        raise ValueError(f"{place}: holds no series of kind {rule.name}; {_listed(groups.values())}.")
    if len(taken) > 1:
        lines = (f"--series {uid} ({_described(group)})" for uid, group in sorted(taken.items()))
        raise ValueError(f"{place}: {len(taken)} series of kind {rule.name}; say which: {', or '.join(lines)}.")
    (instances,) = taken.values()
    _check_series(instances, rule, place)
    unique: dict[str, Dataset] = {}
    for dataset in instances:
        first = unique.setdefault(str(dataset.SOPInstanceUID), dataset)  # a file may be there twice
        if first is not dataset and not _is_copy(first, dataset):
            raise ValueError(
                f"{place}: two different images have the SOPInstanceUID {dataset.SOPInstanceUID}, so no result could "
                "say which it is of; give one of them another, or take it away."
            )
    return sorted(unique.values(), key=lambda each: (int(each.get("InstanceNumber") or 0), str(each.SOPInstanceUID)))


def _described(series: Sequence[Dataset]) -> str:
    """Say what tells a series from others by its codes and numbers alone: a description may name the patient."""
    modality = str(series[0].get("Modality") or "no Modality")
    number = str(series[0].get("SeriesNumber") or "")
    size = f"{len(series)} {'file' if len(series) == 1 else 'files'}"
    return ", ".join([modality, *([f"series {number}"] if number.isdecimal() else []), size])


def is_foreign_image(dataset: Dataset) -> bool:
    """Tell whether an instance is an image, and none that a bundle made: no report, segmentation, overlay."""
    is_result = str(dataset.get("Manufacturer") or "") == MANUFACTURER
    return "Rows" in dataset and dataset.get("Modality") not in ("SEG", "SR", "PR", "RTDOSE") and not is_result


def label_of(dataset: Dataset, position: int) -> str:
    """Name an instance in a message by its numbers, or its place among others: a file name may be that of a patient."""
    numbers = [str(dataset.get(field) or "") for field in ("InstanceNumber", "SeriesNumber")]
    if all(number.isdecimal() for number in numbers):
        return "image {} of series {}".format(*numbers)
    return f"image at place {position}"


def _is_copy(first: Dataset, second: Dataset) -> bool:
    """Tell whether two instances are the same in all fields and pixels."""
    one, other = (str(getattr(each, "filename", None) or "") for each in (first, second))
    if not (one and other):
        return first == second
    if filecmp.cmp(one, other, shallow=False):
        return True
    with silent_pydicom():
        return dcmread(one, force=True) == dcmread(other, force=True)


def _localizes(dataset: Dataset) -> bool:
    return "LOCALIZER" in (dataset.get("ImageType") or ())


def _listed(groups: Iterable[Sequence[Dataset]]) -> str:
    counts = Counter(
        f"{group[0].get('Modality') or 'no modality'} {group[0].get('PhotometricInterpretation', '')}".strip()
        for group in groups
    )
    return "there are " + ", ".join(f"{number} of {kind}" for kind, number in counts.items()) if counts else "none"


def _check_series(instances: Sequence[Dataset], rule: Rule, place: str) -> None:
    for position, dataset in enumerate(instances, start=1):
        name = label_of(dataset, position)
        if missing := [field for field in IDENTIFIERS if not dataset.get(field)]:
            raise ValueError(f"{place}: {name} has no {missing[0]}, so no result could refer to it.")
        if "PatientID" not in dataset and "PatientName" not in dataset:
            raise ValueError(f"{place}: {name} has neither PatientID nor PatientName: whose is it?")
        if not rule.takes(dataset):
            kind = f"{dataset.get('Modality')} {dataset.get('PhotometricInterpretation')}"
            raise ValueError(f"{place}: one series mixes kinds of images: {name} is {kind}, no {rule.name}.")
        if dataset.SOPClassUID in OF_FRAMES:
            raise ValueError(
                f"{place}: {name} is of the class {UID(dataset.SOPClassUID).name}, whose files hold frames, and no "
                "result could refer to it: export it as a Secondary Capture, one image a file, such as by dcmj2pnm of "
                "DCMTK and img2dcm."
            )
        if (frames := dataset.get("NumberOfFrames") or 1) != 1:
            raise ValueError(
                f"{place}: NumberOfFrames of {name} is {frames}, expected one frame a file; split it first, an "
                "enhanced CT by emf2sf of dcm4che into DICOM files, a film by dcmj2pnm --all-frames --write-png of "
                "DCMTK into pictures."
            )
    for field in ("StudyInstanceUID", "PatientID", *(("Rows", "Columns", "FrameOfReferenceUID") * rule.as_volume)):
        if len({str(dataset.get(field)) for dataset in instances}) > 1:
            raise ValueError(f"{place}: one series mixes several {field}, expected one.")
