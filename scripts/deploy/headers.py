"""What a result takes over from its source images, its UIDs, and what is left out of it where nobody may be named."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.codedict import codes
from pydicom.uid import UID, generate_uid

from .inference import Bundle
from .series import MANUFACTURER

# Type 2 of the modules of patient and study: there, but maybe empty.
PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
STUDY = ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID")
IDENTIFYING = (
    *("IssuerOfPatientID", "OtherPatientIDs", "OtherPatientNames", "PatientAge", "PatientAddress", "PatientComments"),
    *("EthnicGroup", "Occupation", "AdditionalPatientHistory", "PatientSize", "PatientWeight", "InstitutionName"),
    *("InstitutionAddress", "StationName", "OperatorsName", "PerformingPhysicianName", "StudyDescription"),
    *("PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "AdmittingDiagnosesDescription", "SeriesDescription"),
    *("DeviceSerialNumber", "ProtocolName", "RequestAttributesSequence", "OtherPatientIDsSequence"),
)
REQUIRED_ORIENTATION = "PatientOrientation"


def uid_of(bundle: Bundle, sources: Iterable[Dataset], *what: Any) -> UID:
    """Make the UID of a result: the same for the same weights, inference and images, so that it is no second one."""
    images = sorted(str(dataset.SOPInstanceUID) for dataset in sources)
    return generate_uid(entropy_srcs=[bundle.name, bundle.version, bundle.digest, *map(str, what), *images])


def source_header(dataset: Dataset, *, deidentify: bool = False) -> Dataset:
    """Copy an instance without pixels and private fields, with all that a result has to have of its patient and study.

    Args:
        dataset: the instance.
        deidentify: empty the fields that say who the patient is, and where and when the study was; its UIDs stay, so
            that the result can be laid on its images.
    """
    rest = [element for element in dataset if element.tag not in (0x7FE00010, 0x7FE00008, 0x7FE00009)]
    header = Dataset()
    for element in rest:
        if not element.tag.is_private:
            header.add(copy.deepcopy(element))
    if hasattr(dataset, "file_meta"):
        header.file_meta = dataset.file_meta
    for name in (*PATIENT, *STUDY):
        if name not in header or deidentify:
            setattr(header, name, "")
    if deidentify:
        for name in IDENTIFYING:
            if name in header:
                delattr(header, name)
    for name in ("PatientName", "ReferringPhysicianName"):
        setattr(header, name, str(header.get(name) or ""))  # as text, to be written in another character set
    return header


def finish(result: Dataset, sources: Sequence[Dataset], *, deidentify: bool) -> Dataset:
    """Set what highdicom leaves out of a result: character set, orientation, and who was taken out of it.

    Args:
        result: a dataset of highdicom; changed.
        sources: its source images, from :func:`source_header`.
        deidentify: they were stripped.
    """
    result.SpecificCharacterSet = "ISO_IR 192"
    if "Rows" in result and REQUIRED_ORIENTATION not in result and "ImageOrientationPatient" not in sources[0]:
        result.PatientOrientation = sources[0].get(REQUIRED_ORIENTATION) or ""
    if deidentify:
        result.PatientIdentityRemoved = "YES"
        result.DeidentificationMethod = f"{MANUFACTURER}: patient and study emptied, UIDs kept"
        result.DeidentificationMethodCodeSequence = DicomSequence([_code(codes.DCM.RetainUidsOption)])
    return result


def _code(code: Any) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
