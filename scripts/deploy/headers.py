"""What a result takes over from its source images, its UIDs, and what is left out of it where nobody may be named."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.codedict import codes
from pydicom.uid import UID, UID_dictionary, generate_uid
from pydicom.valuerep import DA, TM

from .inference import Bundle
from .series import MANUFACTURER, Rule, label_of

PIXELS = 0x7FE0
# Type 2 of the modules of patient and study: there, but maybe empty.
PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
STUDY = ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID")
TIMES = {
    "StudyDate": (DA, "YYYYMMDD"),
    "StudyTime": (TM, "HHMMSS"),
    "PatientBirthDate": (DA, "YYYYMMDD"),
}
# Numbers, codes and UIDs; texts, names, dates and sequences can tell who, where and when.
TELLING_NOTHING = ("CS", "UI", "DS", "IS", "US", "SS", "UL", "SL", "FD", "FL")
OF_PATIENT = (0x0010, 0x0012, 0x0032, 0x0038, 0x0040)
ORIENTATION = "PatientOrientation"
DEIDENTIFICATION = ("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence")


def uid_of(bundle: Bundle, sources: Iterable[Dataset], *what: Any) -> UID:
    """Make the UID of a result: the same for the same weights, code and images, so that it is no second one."""
    images = sorted(str(dataset.SOPInstanceUID) for dataset in sources)
    return generate_uid(entropy_srcs=[bundle.name, bundle.version, bundle.digest, *map(str, what), *images])


def new_uid(uid: str, key: str) -> UID:
    """Give the UID that takes the place of another: the same for the same key, which alone leads from one to the other.

    Source: PS3.15, E.3.9, without the Retain UIDs Option: UIDs are replaced, the same one by the same one.
    """
    return generate_uid(entropy_srcs=[key, str(uid)])


def source_header(dataset: Dataset, *, deidentify: bool = False, uid_key: str | None = None) -> Dataset:
    """Copy an instance without pixels and private fields, with all that a result has to have of its patient and study.

    Args:
        dataset: the instance.
        deidentify: take over nothing but numbers, codes and UIDs of the image, so nothing of who the patient is, and
            where and when the study was.
        uid_key: with deidentify, UIDs are replaced by it, see :func:`new_uid`; None keeps them, so that the result
            can be laid on its images.
    """
    header = Dataset()
    for element in dataset:
        if element.tag.is_private or element.tag.group == PIXELS:
            continue
        if deidentify and (element.VR not in TELLING_NOTHING or element.tag.group in OF_PATIENT):
            continue
        header.add(copy.deepcopy(element))
    if hasattr(dataset, "file_meta"):
        header.file_meta = dataset.file_meta
    if deidentify:
        header.PatientIdentityRemoved = "YES"
        header.DeidentificationMethod = f"{MANUFACTURER}: patient and study emptied, UIDs kept"
        header.DeidentificationMethodCodeSequence = DicomSequence([_code(codes.DCM.RetainUidsOption)])
    if deidentify and uid_key is not None:
        _replace_uids(header, uid_key)
        header.DeidentificationMethod = f"{MANUFACTURER}: patient and study emptied, UIDs replaced"
        del header.DeidentificationMethodCodeSequence
    for name in (*PATIENT, *STUDY):
        if name not in header:
            setattr(header, name, "")
    for name in ("PatientName", "ReferringPhysicianName"):
        setattr(header, name, str(header.get(name) or ""))  # as text, to be written in another character set
    return header


def _replace_uids(header: Dataset, key: str) -> None:
    """Replace what names an instance, series, study or frame, and no term of the standard."""
    for element in header:
        if element.VR == "UI" and not element.is_empty and not element.keyword.endswith("ClassUID"):
            values = element.value if element.VM > 1 else [element.value]
            values = [each if each in UID_dictionary else new_uid(each, key) for each in values]
            element.value = values if len(values) > 1 else values[0]
    if hasattr(header, "file_meta"):
        header.file_meta = copy.deepcopy(header.file_meta)
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID


def check_headers(headers: Sequence[Dataset], rule: Rule, place: str) -> None:
    """Refuse before the inference what no result could be written with.

    Args:
        headers: from :func:`source_header`.
        rule: of the bundle.
        place: what to call the study in a message.

    Raises:
        ValueError: a date or time is none, or a slice has no frame of reference; a date is not quoted.
    """
    for position, header in enumerate(headers, start=1):
        name = label_of(header, position)
        for field, (kind, form) in TIMES.items():
            try:
                kind(str(header.get(field) or ""))
            except ValueError:
                raise ValueError(
                    f"{place}: {field} of {name} is not {form}, so no result can have it; correct or empty it, or "
                    "leave it out by --deidentify."
                ) from None
        if rule.as_volume and not header.get("FrameOfReferenceUID"):
            raise ValueError(
                f"{place}: {name} has no FrameOfReferenceUID, so no segmentation can lie on it; give all slices of the "
                "series one."
            )


def finish(result: Dataset, sources: Sequence[Dataset], *, deidentify: bool) -> Dataset:
    """Set what highdicom leaves out of a result: character set, orientation, and who was taken out of it.

    Args:
        result: a dataset of highdicom; changed.
        sources: its source images, from :func:`source_header`.
        deidentify: they were stripped.
    """
    result.SpecificCharacterSet = "ISO_IR 192"
    if "Rows" in result and ORIENTATION not in result and "ImageOrientationPatient" not in sources[0]:
        result.PatientOrientation = sources[0].get(ORIENTATION) or ""
    if deidentify:
        for name in DEIDENTIFICATION:
            if name in sources[0]:
                setattr(result, name, sources[0][name].value)
    return result


def _code(code: Any) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
