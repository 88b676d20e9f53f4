"""DICOM results of a bundle: segmentations, overlays and annotations of cells, each referring to its source images."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.ann import AnnotationGroup, Measurements, MicroscopyBulkSimpleAnnotations
from highdicom.color import CIELabColor
from highdicom.sc import SCImage
from highdicom.seg import Segmentation, SegmentDescription
from PIL import Image
from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.codedict import codes

from clinbundles.engines.outputs.colors import PREDICTION, RGB, class_colors
from clinbundles.engines.outputs.outlines import polygons

from .codes import ANATOMY, category_of, own_term, term_of
from .headers import ORIENTATION, finish, uid_of
from .inference import CLASSES, SEGMENTS, Bundle
from .series import MANUFACTURER

DISCLAIMER = "Research use. Not a medical device, not for diagnosis."

MOST_SHIFT_PX = 0.1
# How high and wide a pixel is; a viewer stretches an image accordingly.
PIXEL_SHAPE = ("PixelSpacing", "PixelSpacingCalibrationType", "NominalScannedPixelSpacing", "PixelAspectRatio")
SEGMENTATION, REPORT, TEXT_REPORT, OVERLAY, ANNOTATIONS = "seg", "sr", "text", "overlay", "ann"
# Above those of any scanner, and one for each kind of result.
SERIES_NUMBERS = {SEGMENTATION: 9101, REPORT: 9102, TEXT_REPORT: 9103, OVERLAY: 9104, ANNOTATIONS: 9105}


def identity(bundle: Bundle, sources: Sequence[Dataset], kind: str, number: int = 1) -> dict[str, Any]:
    """Give the UIDs, numbers and equipment of a result, as highdicom takes them."""
    return {
        "series_instance_uid": uid_of(bundle, sources[:1], "series", kind),
        "series_number": SERIES_NUMBERS[kind],
        "sop_instance_uid": uid_of(bundle, sources, kind),
        "instance_number": number,
        "manufacturer": MANUFACTURER,
    }


def equipment(bundle: Bundle) -> dict[str, Any]:
    """Name the bundle as the device: model, version, and the first digits of what it was made from."""
    return {
        "manufacturer_model_name": bundle.name[:64],
        "software_versions": bundle.version,
        "device_serial_number": bundle.digest[:16],
    }


def algorithm(bundle: Bundle) -> AlgorithmIdentificationSequence:
    """Name the bundle as the algorithm."""
    return AlgorithmIdentificationSequence(
        name=bundle.name[:64], family=codes.DCM.ArtificialIntelligence, version=bundle.version, source=MANUFACTURER
    )


def as_frames(labels: np.ndarray, affine: np.ndarray | None, sources: Sequence[Dataset]) -> np.ndarray:
    """Arrange a label map as the source images are: one frame (H, W) an image.

    Args:
        labels: (H, W) for one image, or (x, y, z) with an affine.
        affine: (4, 4) from the axes of a volume to mm towards right, anterior, superior.
        sources: the images.

    Returns:
        uint16 (images, H, W).

    Raises:
        ValueError: the map has another geometry than the images.
    """
    size = size_of(sources[0])
    if affine is None:
        if labels.shape != size or len(sources) != 1:
            raise ValueError(f"a mask of {labels.shape} rows and columns does not lie on an image of {size}.")
        return labels[None].astype(np.uint16)
    frames = np.zeros((len(sources), *size), np.uint16)
    to_index = np.linalg.inv(affine) @ np.diag([-1.0, -1.0, 1.0, 1.0])
    for frame, dataset in zip(frames, sources, strict=True):
        corner = np.asarray(dataset.ImagePositionPatient, float)
        rows_mm, columns_mm = (float(number) for number in dataset.PixelSpacing)
        along = np.asarray(dataset.ImageOrientationPatient, float)
        beside = corner + (size[1] - 1) * columns_mm * along[:3]  # with exchanged axes, a square has its diagonal still
        last = beside + (size[0] - 1) * rows_mm * along[3:]
        indices = np.stack([(to_index @ [*point, 1.0])[:3] for point in (corner, beside, last)])
        k = round(float(indices[0, 2]))
        shift = np.abs(indices - [[0, 0, k], [size[1] - 1, 0, k], [size[1] - 1, size[0] - 1, k]]).max()
        if labels.shape[:2] != size[::-1] or not 0 <= k < labels.shape[2] or shift > MOST_SHIFT_PX:
            raise ValueError(
                f"a mask of {labels.shape} voxels does not lie on a series of {len(sources)} images of {size}: "
                f"they are {shift:.1f} voxels apart."
            )
        frame[:] = labels[:, :, k].T
    return frames


def segmentation(
    bundle: Bundle, sources: Sequence[Dataset], frames: np.ndarray, *, number: int = 1, deidentify: bool = False
) -> Dataset:
    """Write a label map as a DICOM segmentation with a coded segment for each class, in its colour.

    Args:
        bundle: that made it.
        sources: the images, from :func:`.headers.source_header`.
        frames: label map (images, H, W), see :func:`as_frames`.
        number: InstanceNumber.
        deidentify: the sources were stripped.
    """
    labels, colors = bundle.labels, _colors(bundle)
    descriptions = [
        SegmentDescription(
            segment_number=place,
            segment_label=name[:64],
            segmented_property_category=category_of(name),
            segmented_property_type=term_of(name),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm(bundle),
            display_color=CIELabColor.from_rgb(*colors[place - 1]),
        )
        for place, name in enumerate(labels.values(), start=1)
    ]
    masks = np.stack([frames == value for value in labels], axis=-1).astype(np.uint8)
    result = Segmentation(
        source_images=list(sources),
        pixel_array=masks,
        segmentation_type="BINARY",
        segment_descriptions=descriptions,
        omit_empty_frames=bool(masks.any()),
        content_label="SEGMENTATION",
        series_description=f"{bundle.name} segmentation"[:64],
        **identity(bundle, sources, SEGMENTATION, number),
        **equipment(bundle),
    )
    return finish(result, sources, deidentify=deidentify)


def overlay(
    bundle: Bundle, sources: Sequence[Dataset], picture: Path, *, number: int = 1, deidentify: bool = False
) -> Dataset:
    """Write the bundle's picture of its result as a secondary capture.

    One on the pixels of its source image has their shape; whether text that tells of a patient is burnt into that is
    taken over.
    """
    source = sources[0]
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    result = SCImage.from_ref_dataset(
        source,
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        series_description=f"{bundle.name} {'Grad-CAM' if bundle.output_kind == CLASSES else 'overlay'}"[:64],
        **identity(bundle, sources, OVERLAY, number),
    )
    result.ImageComments = DISCLAIMER
    result.DerivationDescription = _legend(bundle)
    result.SourceImageSequence = DicomSequence([_reference_to(each) for each in sources])
    setattr(result, ORIENTATION, source.get(ORIENTATION) or "")
    result.setdefault("Laterality", "")  # unknown where the source does not tell
    is_on_pixels = bundle.output_kind != CLASSES and len(sources) == 1 and pixels.shape[:2] == size_of(source)
    for name in ("BurnedInAnnotation", *(PIXEL_SHAPE * is_on_pixels)):
        if value := source.get(name):
            setattr(result, name, value)
    return finish(result, sources, deidentify=deidentify)


def _colors(bundle: Bundle) -> tuple[RGB, ...]:
    """Give the colours of the segments as its overlay has them: of the classes of a label map, or of a mask."""
    return class_colors(len(bundle.labels)) if bundle.has_background else (PREDICTION,)


def _legend(bundle: Bundle) -> str:
    """Say who drew a picture, and in which colour each class."""
    pairs = zip(bundle.labels.values(), _colors(bundle), strict=True) if bundle.output_kind == SEGMENTS else ()
    own = [f"{name}: RGB {color}" for name, color in pairs]
    return "; ".join([f"drawn by {bundle.name} {bundle.version}", *own])[:1024]


def size_of(image: Dataset) -> tuple[int, int]:
    """Give the rows and columns of an image."""
    return int(image.Rows), int(image.Columns)


def _reference_to(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


def cell_annotations(
    bundle: Bundle,
    sources: Sequence[Dataset],
    labels: np.ndarray,
    scores: Mapping[int, float],
    *,
    number: int = 1,
    deidentify: bool = False,
) -> Dataset | None:
    """Write the cells of an image as outlines in px with area and score: one group of bulk annotations.

    Args:
        bundle: that made it.
        sources: the one image.
        labels: (H, W), 0 for background.
        scores: of each cell by its number.
        number: InstanceNumber.
        deidentify: the source was stripped.

    Returns:
        None where there is no cell.
    """
    name = bundle.labels[1]
    outlines, areas, certainties = [], [], []
    for cell in np.unique(labels[labels > 0]).tolist():
        rings = [shape[0] for shape in polygons(labels == cell)]
        outline = max(rings, key=lambda ring: len(ring))
        outlines.append(np.asarray(outline, np.float32)[:-1])
        areas.append(float((labels == cell).sum()))
        certainties.append(float(scores.get(cell, np.nan)))
    if not outlines:
        return None
    group = AnnotationGroup(
        number=1,
        uid=uid_of(bundle, sources, "group"),
        label=name,
        annotated_property_category=ANATOMY,
        annotated_property_type=term_of(name),
        graphic_type="POLYGON",
        graphic_data=outlines,
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm(bundle),
        measurements=[
            Measurements(codes.SCT.Area, np.array(areas), own_term("px2", "square pixels")),
            Measurements(codes.DCM.Probability, np.array(certainties), codes.UCUM.NoUnits),
        ],
    )
    # highdicom wants a frame of reference, which coordinates in px of an image do without.
    placed = copy.deepcopy(sources[0])
    placed.setdefault("FrameOfReferenceUID", uid_of(bundle, sources, "frame of reference"))
    result = MicroscopyBulkSimpleAnnotations(
        source_images=[placed],
        annotation_coordinate_type="2D",
        annotation_groups=[group],
        content_label="CELLS",
        series_description=f"{bundle.name} cells"[:64],
        **identity(bundle, sources, ANNOTATIONS, number),
        **equipment(bundle),
    )
    result.setdefault("Laterality", "")  # unknown where the source does not tell
    return finish(result, sources, deidentify=deidentify)
