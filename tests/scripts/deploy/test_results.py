"""DICOM segmentations, overlays and annotations, read back by highdicom."""

from collections.abc import Callable
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from highdicom.color import CIELabColor
from PIL import Image
from pydicom.uid import CTImageStorage

from clinbundles.engines.outputs.colors import PREDICTION, class_colors
from clinbundles.scripts.deploy.headers import source_header
from clinbundles.scripts.deploy.inference import Bundle
from clinbundles.scripts.deploy.results import as_frames, cell_annotations, overlay, segmentation

Maker = Callable[..., pydicom.Dataset]


@pytest.fixture
def slices(instance: Maker) -> list[pydicom.Dataset]:
    """Three slices of 40 x 60 px, out of order."""
    return [
        source_header(
            instance(
                SOPClassUID=CTImageStorage,
                Modality="CT",
                SOPInstanceUID=f"1.2.3.{k + 1}",
                FrameOfReferenceUID="1.2.3.5",
                ImagePositionPatient=[-30.0, -10.0, 5.0 * k],
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                PixelSpacing=[2.0, 1.0],
                SliceThickness=5,
                PositionReferenceIndicator="",
            )
        )
        for k in (2, 0, 1)
    ]


AFFINE = np.array([[-1.0, 0, 0, 30], [0, -2, 0, 10], [0, 0, 5, 0], [0, 0, 0, 1]])


def test_a_volume_becomes_frames_in_the_order_of_its_images(slices: list[pydicom.Dataset]) -> None:
    labels = np.arange(60 * 40 * 3).reshape(60, 40, 3)
    frames = as_frames(labels, AFFINE, slices)
    for frame, k in zip(frames, (2, 0, 1), strict=True):
        assert np.array_equal(frame, labels[:, :, k].T)


def test_a_mask_of_another_geometry_is_refused(slices: list[pydicom.Dataset]) -> None:
    labels = np.zeros((60, 40, 3), int)
    moved = AFFINE.copy()
    moved[0, 3] += 0.5
    with pytest.raises(ValueError, match=r"does not lie on a series of 3 images of \(40, 60\): they are 0\.5 voxels"):
        as_frames(labels, moved, slices)
    with pytest.raises(ValueError, match=r"of \(40, 60, 3\) voxels does not lie"):
        as_frames(labels.transpose(1, 0, 2), AFFINE, slices)
    with pytest.raises(ValueError, match=r"a mask of \(60, 40\) rows and columns does not lie on an image of"):
        as_frames(labels[..., 0], None, slices[:1])


def test_a_mask_with_exchanged_axes_is_refused_on_a_square_image_too(slices: list[pydicom.Dataset]) -> None:
    for image in slices:
        image.Columns, image.PixelSpacing = 40, [2.0, 2.0]
    affine = AFFINE.copy()
    affine[0, 0] = -2
    labels = np.zeros((40, 40, 3), int)
    assert as_frames(labels, affine, slices).shape == (3, 40, 40)
    with pytest.raises(ValueError, match=r"does not lie on a series of 3 images of \(40, 40\)"):
        as_frames(labels, affine[:, [1, 0, 2, 3]], slices)


def test_a_segmentation_has_a_coded_segment_a_class_and_refers_to_its_slices(
    slices: list[pydicom.Dataset], as_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    frames = np.zeros((3, 40, 60), np.uint16)
    frames[0, 5:9, 6:20], frames[2, 1:3, 1:4] = 1, 2
    bundle = as_bundle("background", "left lung", "right lung")
    segmentation(bundle, slices, frames).save_as(tmp_path / "seg.dcm")
    mask = highdicom.seg.segread(tmp_path / "seg.dcm")
    uids = [each.SOPInstanceUID for each in slices]
    read = mask.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
    assert np.array_equal(read, frames)
    terms = [mask.get_segment_description(k).segmented_property_type for k in (1, 2)]
    assert [term.value for term in terms] == ["44029006", "3341006"]
    assert (mask.StudyInstanceUID, str(mask.PatientName)) == ("1.2.3", "Doe^Jane")
    again = segmentation(bundle, slices, frames)
    assert (again.SOPInstanceUID, again.SeriesInstanceUID) == (mask.SOPInstanceUID, mask.SeriesInstanceUID)


def test_a_mask_of_nothing_is_a_segmentation_too(instance: Maker, as_bundle: Callable[..., Bundle]) -> None:
    source = source_header(instance(PatientOrientation=["L", "F"]))
    mask = segmentation(as_bundle("polyp"), [source], np.zeros((1, 40, 60), np.uint16))
    assert not mask.pixel_array.any()
    assert mask.PatientOrientation == ["L", "F"]


def test_an_overlay_is_a_picture_that_names_its_source(
    instance: Maker, as_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "overlay.png")
    picture = overlay(as_bundle("polyp"), [source_header(instance())], tmp_path / "overlay.png")
    assert np.array_equal(picture.pixel_array, pixels)
    assert picture.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.1"
    assert picture.PatientOrientation in (None, "")
    assert picture.ImageComments == "Research use. Not a medical device, not for diagnosis."
    assert picture.DerivationDescription.endswith(f"; polyp: RGB {PREDICTION}")


def test_an_overlay_has_the_shape_of_its_sources_pixels_and_says_whether_text_is_burnt_in(
    instance: Maker, as_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    Image.new("RGB", (60, 40)).save(tmp_path / "overlay.png")
    Image.new("RGB", (100, 40)).save(tmp_path / "panels.png")
    fields = {"PixelAspectRatio": [2, 1], "BurnedInAnnotation": "YES"}
    source = source_header(instance(**fields), deidentify=True)
    picture, panels = (overlay(as_bundle("polyp"), [source], tmp_path / name) for name in ("overlay.png", "panels.png"))
    assert (picture.PixelAspectRatio, picture.BurnedInAnnotation) == ([2, 1], "YES")
    assert ("PixelAspectRatio" in panels, panels.BurnedInAnnotation) == (False, "YES")
    source.PixelSpacing = [0.5, 0.25]
    assert overlay(as_bundle("polyp"), [source], tmp_path / "overlay.png").PixelSpacing == [0.5, 0.25]


def test_segments_have_the_colours_of_the_overlay(
    slices: list[pydicom.Dataset], as_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    frames = np.ones((3, 40, 60), np.uint16)
    many = ("background", *(f"part {k}" for k in range(1, 11)))
    # A label map of one class is drawn in the colour of class 1, and a mask in its own.
    expected = {many: class_colors(10), ("background", "nucleus"): class_colors(1), ("polyp",): (PREDICTION,)}
    for names, colors in expected.items():
        bundle = as_bundle(*names)
        segments = segmentation(bundle, slices, frames).SegmentSequence
        read = [CIELabColor.from_dicom_value(each.RecommendedDisplayCIELabValue).to_rgb() for each in segments]
        assert np.abs(np.array(read) - colors).max() <= 2
        Image.new("RGB", (60, 40)).save(tmp_path / "overlay.png")
        legend = overlay(bundle, slices, tmp_path / "overlay.png").DerivationDescription
        drawn = [f"{name}: RGB {color}" for name, color in zip(bundle.labels.values(), colors, strict=True)]
        assert legend.split("; ")[1:] == drawn


def test_cells_are_outlines_with_area_and_score(instance: Maker, as_bundle: Callable[..., Bundle]) -> None:
    labels = np.zeros((40, 60), int)
    labels[2:5, 10:14], labels[20:22, 30:31] = 1, 7
    bundle = as_bundle("cells", format="instances")
    result = cell_annotations(bundle, [source_header(instance())], labels, {1: 0.9, 7: 0.4})
    (group,) = highdicom.ann.MicroscopyBulkSimpleAnnotations.from_dataset(result).get_annotation_groups()
    first, second = group.get_graphic_data("2D")
    assert {tuple(corner) for corner in first.tolist()} == {(10, 2), (14, 2), (14, 5), (10, 5)}
    assert {tuple(corner) for corner in second.tolist()} == {(30, 20), (31, 20), (31, 22), (30, 22)}
    assert group.get_measurements()[1] == pytest.approx(np.array([[12, 0.9], [2, 0.4]]))
    assert cell_annotations(bundle, [source_header(instance())], labels * 0, {}) is None
