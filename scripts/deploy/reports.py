"""DICOM structured reports of what a bundle found: Comprehensive SR by TID 1500, or Basic Text SR.

PS3.16, TID 1500 "Measurement Report" and TID 1501 "Measurement and Qualitative Evaluation Group".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ComprehensiveSR,
    ContainerContentItem,
    DeviceObserverIdentifyingAttributes,
    EnhancedSR,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.codedict import codes
from pydicom.uid import BasicTextSRStorage
from scipy import ndimage

from .codes import category_of, own_term, term_of
from .headers import finish, uid_of
from .inference import Bundle, Prediction
from .results import DISCLAIMER, REPORT, TEXT_REPORT, equipment, identity

PIXELS = CodedConcept("{pixels}", "UCUM", "pixels")
PROCEDURE = CodedConcept("363679005", "SCT", "Imaging procedure")
NO_UNITS = codes.UCUM.NoUnits


@dataclass(frozen=True)
class Value:
    """A number of a report.

    Attributes:
        what: the quantity.
        number: in units.
        unit: of it.
    """

    what: CodedConcept
    number: float
    unit: CodedConcept


@dataclass(frozen=True)
class Group:
    """What a report says of one thing in one image or volume.

    Attributes:
        name: of the class or segment that was found; of a classification, the class with the highest probability.
        values: measured of it.
        sources: the images.
        is_class: it is the answer to which class the image is of.
        warning: what the reader says of the image.
    """

    name: str
    values: tuple[Value, ...]
    sources: tuple[Dataset, ...]
    is_class: bool = False
    warning: str = ""


def class_group(bundle: Bundle, prediction: Prediction, source: Dataset) -> Group:
    """Sum up a classification: the class, and the probability of each."""
    probabilities = prediction.probabilities
    if probabilities is None:
        raise ValueError(f"{bundle.name}: gives no probabilities.")
    names = bundle.labels
    values = tuple(
        Value(own_term(f"P_{name}", f"Probability of {term_of(name).meaning}"), float(each), NO_UNITS)
        for name, each in zip(names.values(), probabilities, strict=True)
    )
    best = names[int(np.argmax(probabilities))]
    return Group(best, values, (source,), is_class=True, warning=prediction.warning)


def segment_groups(bundle: Bundle, frames: np.ndarray, sources: Sequence[Dataset]) -> list[Group]:
    """Measure each segment of a label map: the area of one image or the volume of several, and the number of regions.

    Areas are in mm2 where the image has PixelSpacing, else in px.

    Args:
        bundle: that made it.
        frames: (images, H, W).
        sources: the images.
    """
    groups = []
    for value, name in bundle.labels.items():
        mask = frames == value
        size = _size(mask, sources)
        if bundle.output_kind == "instances":
            mask, size = frames > 0, _size(frames > 0, sources)
            count = len(np.unique(frames[mask]))
        else:
            count = int(ndimage.label(_in_space(mask, sources))[1])
        number = Value(codes.SCT.NumberOfLesions if name == "polyp" else own_term("count", f"Number of {name} regions"),
                       count, NO_UNITS)  # fmt: skip
        groups.append(Group(name, (size, number), tuple(sources)))
    return groups


def report(
    bundle: Bundle,
    groups: Sequence[Group],
    sources: Sequence[Dataset],
    *,
    number: int = 1,
    deidentify: bool = False,
) -> Dataset:
    """Write groups as a Comprehensive SR by TID 1500, which refers to the images.

    Args:
        bundle: the observer.
        groups: from :func:`class_group` or :func:`segment_groups`.
        sources: the images, from :func:`.headers.source_header`.
        number: InstanceNumber.
        deidentify: the sources were stripped.
    """
    device = DeviceObserverIdentifyingAttributes(
        uid=uid_of(bundle, (), "device"),
        name=bundle.name[:64],
        manufacturer_name="clinbundles",
        model_name=bundle.name[:64],
        serial_number=bundle.digest[:16],
    )
    content = MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=ObserverContext(
                observer_type=codes.DCM.Device, observer_identifying_attributes=device
            )
        ),
        procedure_reported=PROCEDURE,
        imaging_measurements=[_group_of(bundle, group, place, sources) for place, group in enumerate(groups, start=1)],
        title=codes.DCM.ImagingMeasurementReport,
    )
    result = ComprehensiveSR(
        evidence=list(sources),
        content=content[0],
        is_complete=True,
        series_description=f"{bundle.name} report"[:64],
        **identity(bundle, sources, REPORT, number),
    )
    _name_equipment(result, bundle)
    return finish(result, sources, deidentify=deidentify)


def text_report(
    bundle: Bundle, groups: Sequence[Group], sources: Sequence[Dataset], *, number: int = 1, deidentify: bool = False
) -> Dataset:
    """Write groups as a Basic Text SR: one sentence each."""
    root = ContainerContentItem(name=codes.DCM.ImagingMeasurementReport)
    sentences = [sentence_of_group(group) for group in groups]
    root.ContentSequence = DicomSequence(
        [
            TextContentItem(name=codes.DCM.Finding, value=text, relationship_type="CONTAINS")
            for text in (*sentences, f"{bundle.name} {bundle.version}. {DISCLAIMER} {bundle.weights_note}".strip())
        ]
    )
    result = EnhancedSR(
        evidence=list(sources),
        content=root,
        is_complete=True,
        series_description=f"{bundle.name} text report"[:64],
        **identity(bundle, sources, TEXT_REPORT, number),
    )
    result.SOPClassUID = result.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    _name_equipment(result, bundle)
    return finish(result, sources, deidentify=deidentify)


def sentence_of_group(group: Group) -> str:
    """Say a group in one sentence."""
    values = ", ".join(f"{each.what.meaning} {each.number:.4g} {each.unit.meaning}" for each in group.values)
    text = f"{term_of(group.name).meaning}: {values}.".replace(" no units", "")
    return f"{text} {group.warning}".strip()


def _group_of(
    bundle: Bundle, group: Group, place: int, sources: Sequence[Dataset]
) -> MeasurementsAndQualitativeEvaluations:
    evaluations = []
    if group.is_class:
        evaluations.append(QualitativeEvaluation(own_term("class", "Predicted class"), term_of(group.name)))
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=uid_of(bundle, sources, "group", place), identifier=f"{group.name} {place}"
        ),
        finding_type=term_of(group.name),
        finding_category=category_of(group.name),
        algorithm_id=AlgorithmIdentification(
            name=bundle.name[:64],
            version=bundle.version,
            family=codes.DCM.ArtificialIntelligence,
            parameters=[*filter(None, (DISCLAIMER, bundle.weights_note, group.warning[:256]))],
        ),
        measurements=[Measurement(each.what, _decimal(each.number), each.unit) for each in group.values],
        qualitative_evaluations=evaluations or None,
        source_images=[SourceImageForMeasurementGroup(each.SOPClassUID, each.SOPInstanceUID) for each in group.sources],
    )


def _decimal(number: float) -> float:
    """Round to what a decimal string of 16 characters holds."""
    return float(f"{number:.9g}")


def _name_equipment(result: Any, bundle: Bundle) -> None:
    names = equipment(bundle)
    result.ManufacturerModelName = names["manufacturer_model_name"]
    result.SoftwareVersions = names["software_versions"]
    result.DeviceSerialNumber = names["device_serial_number"]


def _spacing_mm(sources: Sequence[Dataset]) -> tuple[float, float] | None:
    try:
        rows, columns = (float(number) for number in sources[0].get("PixelSpacing") or ())
    except (TypeError, ValueError):
        return None
    return (rows, columns) if min(rows, columns) > 0 else None


def _size(mask: np.ndarray, sources: Sequence[Dataset]) -> Value:
    spacing, pixels = _spacing_mm(sources), int(mask.sum())
    if len(sources) > 1 and spacing is not None:
        height = abs(_places(sources)).max() / (len(sources) - 1)
        return Value(codes.SCT.Volume, pixels * spacing[0] * spacing[1] * height, codes.UCUM.CubicMillimeter)
    if spacing is None:
        return Value(codes.SCT.Area, pixels, PIXELS)
    return Value(codes.SCT.Area, pixels * spacing[0] * spacing[1], codes.UCUM.SquareMillimeter)


def _places(sources: Sequence[Dataset]) -> np.ndarray:
    """Give the distance of each image from the first along the normal of the images, in mm."""
    along = np.asarray(sources[0].ImageOrientationPatient, float)
    corners = np.asarray([each.ImagePositionPatient for each in sources], float)
    places = (corners - corners[0]) @ np.cross(along[:3], along[3:])
    return places - places[np.argmin(places)]


def _in_space(mask: np.ndarray, sources: Sequence[Dataset]) -> np.ndarray:
    """Order the images of a volume as they lie, so that neighbours touch."""
    return mask[np.argsort(_places(sources))] if len(sources) > 1 else mask
