"""Which series of a study a bundle reads."""

from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import OphthalmicPhotography8BitImageStorage

from clinbundles.scripts.bundle import ROOT
from clinbundles.scripts.deploy.series import (
    MANUFACTURER,
    RULES,
    choose_series,
    foreign_modalities,
    read_headers,
    rule_of,
)

Maker = Callable[..., pydicom.Dataset]
XRAY, CT, RGB = RULES["magnitude"], RULES["hounsfield"], RULES["RGB"]


def test_the_input_of_every_bundle_has_a_rule() -> None:
    import json

    files = sorted(ROOT.glob("bundles/*/configs/metadata.json"))
    rules = {file.parents[1].name: rule_of(json.loads(file.read_text())) for file in files}
    assert rules["covid_xray_transfer"] is XRAY
    assert rules["ct_datasetgan"] is CT
    assert rules["gaze_polyp_segmentation"] is RGB
    with pytest.raises(ValueError, match=r"format of the input is None, expected one of hounsfield"):
        rule_of({})


def test_an_x_ray_is_found_among_reports_segmentations_and_results_of_an_earlier_time(instance: Maker) -> None:
    xray = instance()
    others = [
        instance(Modality="SR", Rows=None, SeriesInstanceUID="1.2.3.8"),
        instance(Modality="SEG", SeriesInstanceUID="1.2.3.7"),
        instance(Modality="OT", Manufacturer=MANUFACTURER, SeriesInstanceUID="1.2.3.6"),
    ]
    assert choose_series([*others, xray], XRAY, "study") == [xray]


@pytest.mark.parametrize(
    ("fields", "rule", "sentence"),
    [
        ({}, CT, "study: holds no series of kind CT; there are 1 of CR MONOCHROME2"),
        ({"Modality": "MR"}, XRAY, "holds no series of kind chest X-ray"),
        ({}, RGB, "holds no series of kind colour image"),
        ({"SeriesInstanceUID": None}, XRAY, "has no SeriesInstanceUID, so no result could refer to it"),
        ({"PatientID": None, "PatientName": None}, XRAY, "neither PatientID nor PatientName"),
        (
            {"NumberOfFrames": 3},
            XRAY,
            "NumberOfFrames of .* is 3, expected one frame a file; split it first, .*emf2sf of dcm4che",
        ),
        (
            {"SOPClassUID": OphthalmicPhotography8BitImageStorage, "NumberOfFrames": 1},
            XRAY,
            "of the class Ophthalmic Photography 8 Bit Image Storage, whose files hold frames.*Secondary Capture",
        ),
    ],
)
def test_what_a_bundle_cannot_read_is_said(fields: dict, rule: object, sentence: str, instance: Maker) -> None:
    with pytest.raises(ValueError, match=sentence):
        choose_series([instance(**fields)], rule, "study")


@pytest.mark.parametrize("modality", ["CT", "MR", "PT", "US", "CR", "DX", "MG"])
def test_a_colour_image_of_a_modality_that_is_no_photograph_is_refused(modality: str, instance: Maker) -> None:
    with pytest.raises(ValueError, match=rf"no series of kind colour image .*there are 1 of {modality} RGB"):
        choose_series([instance(Modality=modality, PhotometricInterpretation="RGB")], RGB, "study")


def test_a_colour_image_of_another_modality_than_the_bundles_is_taken_and_said(instance: Maker) -> None:
    metadata = {"network_data_format": {"inputs": {"image": {"format": "RGB", "modality": "endoscopy"}}}}
    own, other = (instance(Modality=name, PhotometricInterpretation="RGB") for name in ("ES", "OT"))
    assert choose_series([other], RGB, "study") == [other]
    assert foreign_modalities(metadata, [own]) == ""
    assert foreign_modalities(metadata, [own, other]) == "images of Modality OT were taken for endoscopy (ES)"


def test_a_refused_image_is_named_by_its_numbers_and_not_by_its_file(instance: Maker) -> None:
    image = instance(NumberOfFrames=2, SeriesNumber=4, InstanceNumber=7)
    image.filename = "Doe_Jane.dcm"
    with pytest.raises(ValueError, match=r"^study: NumberOfFrames of image 7 of series 4 is 2"):
        choose_series([image], XRAY, "study")
    image.InstanceNumber = None
    with pytest.raises(ValueError, match=r"NumberOfFrames of image at place 1 is 2"):
        choose_series([image], XRAY, "study")


def test_of_two_series_one_has_to_be_named(instance: Maker) -> None:
    first = instance(SeriesNumber=4, SeriesDescription="Doe, Jane")
    second = instance(SeriesInstanceUID="1.2.3.10", SOPInstanceUID="1.2.3.2", Modality="DX")
    said = (
        r"say which: --series 1\.2\.3\.10 \(DX, series 1, 1 file\), or --series 1\.2\.3\.9 \(CR, series 4, 1 file\)\.$"
    )
    with pytest.raises(ValueError, match=rf"2 series of kind .*; {said}"):
        choose_series([first, second], XRAY, "study")
    assert choose_series([first, second], XRAY, "study", series="1.2.3.10") == [second]
    with pytest.raises(ValueError, match=r"no series 1\.2\.77 of images"):
        choose_series([first, second], XRAY, "study", series="1.2.77")


def test_a_series_that_mixes_kinds_sizes_or_patients_is_refused(instance: Maker) -> None:
    slices = [instance(Modality="CT", SOPInstanceUID=f"1.2.3.{k}", InstanceNumber=k) for k in (2, 1)]
    assert [each.InstanceNumber for each in choose_series(slices, CT, "study")] == [1, 2]
    for fields, sentence in (
        ({"Rows": 41}, "mixes several Rows, expected one"),
        ({"PatientID": "P2"}, "mixes several PatientID"),
        ({"Modality": "MR"}, "mixes kinds of images: .* is MR MONOCHROME2, no CT"),
    ):
        other = instance(**{"Modality": "CT", "SOPInstanceUID": "1.2.3.3", **fields})
        with pytest.raises(ValueError, match=sentence):
            choose_series([*slices, other], CT, "study")


def test_a_localizer_is_no_slice_and_a_file_that_is_there_twice_counts_once(instance: Maker) -> None:
    slices = [instance(Modality="CT", SOPInstanceUID=f"1.2.3.{k}") for k in (1, 2, 2)]
    scout = instance(Modality="CT", SeriesInstanceUID="1.2.3.8", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert len(choose_series([scout, *slices], CT, "study")) == 2


def saved(dataset: pydicom.Dataset, path: Path, *, bare: bool = False) -> bytes:
    dataset.PixelData = bytes(40 * 60)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    if bare:
        content = path.read_bytes()
        path.write_bytes(content[144 + int.from_bytes(content[140:144], "little") :])
    return path.read_bytes()


def test_files_of_other_kinds_are_passed_over_and_those_without_preamble_are_not(
    instance: Maker, tmp_path: Path
) -> None:
    (tmp_path / "below").mkdir()
    saved(instance(SOPInstanceUID="1.2.3.2"), tmp_path / "below" / "bare", bare=True)
    saved(instance(), tmp_path / "below" / "xray")
    (tmp_path / "notes.txt").write_text("no image")
    read = read_headers(tmp_path)
    assert [Path(each.filename).name for each in read] == ["bare", "xray"]
    assert [each.SOPInstanceUID for each in read] == ["1.2.3.2", "1.2.3.1"]
    assert len(choose_series(read, XRAY, "study")) == 2
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_headers(tmp_path / "other")


def test_copies_are_one_image_and_different_images_with_one_uid_are_refused(instance: Maker, tmp_path: Path) -> None:
    saved(instance(), tmp_path / "1.dcm")
    saved(instance(), tmp_path / "2.dcm")
    saved(instance(), tmp_path / "3", bare=True)
    assert len(choose_series(read_headers(tmp_path), XRAY, "study")) == 1
    content = (tmp_path / "2.dcm").read_bytes()
    (tmp_path / "2.dcm").write_bytes(content[:-1] + b"\1")  # one pixel
    with pytest.raises(ValueError, match=r"study: two different images have the SOPInstanceUID 1\.2\.3\.1"):
        choose_series(read_headers(tmp_path), XRAY, "study")
    with pytest.raises(ValueError, match="two different images"):
        choose_series([instance(), instance(InstanceNumber=2)], XRAY, "study")


@pytest.mark.parametrize("bare", [False, True])
def test_a_dicom_file_that_is_cut_anywhere_before_its_pixels_is_refused_without_its_name(
    bare: bool, instance: Maker, tmp_path: Path
) -> None:
    saved(instance(), tmp_path / "1.dcm")
    content = saved(instance(), tmp_path / "Doe_Jane.dcm", bare=bare)
    for length in range(0, len(content) - 40 * 60 - 12, 7):
        (tmp_path / "Doe_Jane.dcm").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"DICOM file 2 of 2, in the order of their names, ") as caught:
            read_headers(tmp_path)
        assert "Doe" not in str(caught.value)
