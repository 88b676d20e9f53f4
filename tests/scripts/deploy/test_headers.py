"""What a result takes over from its source images."""

from collections.abc import Callable

import pydicom
import pytest
from pydicom.uid import UID

from clinbundles.scripts.deploy.headers import check_headers, finish, source_header, uid_of
from clinbundles.scripts.deploy.inference import Bundle
from clinbundles.scripts.deploy.series import RULES
from clinbundles.transforms.readers.dicom import silent_pydicom


def test_a_uid_rests_on_bundle_images_and_kind_alone(
    instance: Callable[..., pydicom.Dataset], as_bundle: Callable[..., Bundle]
) -> None:
    bundle, first, second = as_bundle("background", "lung"), instance(), instance(SOPInstanceUID="1.2.3.2")
    uid = uid_of(bundle, [first, second], "seg")
    assert uid == uid_of(bundle, [second, first], "seg")
    assert UID(uid).is_valid
    others = {
        uid_of(bundle, [first], "seg"),
        uid_of(bundle, [first, second], "sr"),
        uid_of(bundle.told_apart_by({"force": True}), [first, second], "seg"),
    }
    assert len({uid, *others}) == 4


def test_a_header_has_what_type_2_asks_for_and_no_pixels_and_private_fields(
    instance: Callable[..., pydicom.Dataset],
) -> None:
    image = instance(PixelData=bytes(40 * 60), StudyDate=None, PatientID=None)
    image.add_new(0x00091001, "LO", "secret of a vendor")
    header = source_header(image)
    assert "PixelData" not in header
    assert not [element for element in header if element.tag.is_private]
    assert (header.StudyDate, header.PatientID, header.AccessionNumber) == ("", "", "")
    assert header.PatientName == "Doe^Jane"
    assert "PixelData" in image


def test_a_stripped_header_tells_nothing_of_patient_place_and_time(
    instance: Callable[..., pydicom.Dataset],
) -> None:
    image = instance(
        AccessionNumber="A77", StudyDescription="Doe, chest", PatientAge="050Y", PatientComments="Jane", StudyID="S5"
    )
    header = source_header(image, deidentify=True)
    text = str(header)
    for secret in ("Doe", "Jane", "P1", "1970", "2020", "General Hospital", "A77", "050Y", "S5"):
        assert secret not in text
    assert (header.SOPInstanceUID, header.Rows, header.Modality) == (image.SOPInstanceUID, 40, "CR")
    result = finish(pydicom.Dataset(), [header], deidentify=True)
    assert result.PatientIdentityRemoved == "YES"
    assert result.DeidentificationMethodCodeSequence[0].CodeValue == "113110"


def test_replaced_uids_are_the_same_for_the_same_key_alone_and_classes_stay(
    instance: Callable[..., pydicom.Dataset],
) -> None:
    image = instance(FrameOfReferenceUID="1.2.3.7", AccessionNumber="A77")
    one, again, other = (source_header(image, deidentify=True, uid_key=key) for key in ("a", "a", "b"))
    names = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
    assert one == again
    for name in names:
        assert len({image[name].value, one[name].value, other[name].value}) == 3
    assert one.SOPClassUID == image.SOPClassUID
    assert (
        one.StudyInstanceUID
        == source_header(instance(SOPInstanceUID="1.2.3.2"), deidentify=True, uid_key="a").StudyInstanceUID
    )
    result = finish(pydicom.Dataset(), [one], deidentify=True)
    assert result.DeidentificationMethod.endswith("UIDs replaced")
    assert "DeidentificationMethodCodeSequence" not in result


def test_an_image_gets_the_orientation_of_its_source_or_an_empty_one(
    instance: Callable[..., pydicom.Dataset],
) -> None:
    for orientation, expected in ((["L", "F"], ["L", "F"]), (None, "")):
        source = source_header(instance(PatientOrientation=orientation))
        result = finish(instance(), [source], deidentify=False)
        assert result.PatientOrientation == expected
        assert "PatientIdentityRemoved" not in result


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"StudyDate": "2020-02"}, "StudyDate of image 1 of series 1 is not YYYYMMDD"),
        ({"StudyTime": "noon"}, "StudyTime of image 1 of series 1 is not HHMMSS"),
        ({"PatientBirthDate": "1970"}, "PatientBirthDate of image 1 of series 1 is not YYYYMMDD"),
        ({"FrameOfReferenceUID": None}, "image 1 of series 1 has no FrameOfReferenceUID"),
    ],
)
def test_what_no_result_can_be_written_with_is_refused(
    fields: dict, sentence: str, instance: Callable[..., pydicom.Dataset]
) -> None:
    usual = {"StudyTime": "101112.5", "FrameOfReferenceUID": "1.2.3.5"}
    with silent_pydicom():
        bad, good = instance(**usual | fields), instance(**usual)
        without_date = instance(**usual | {"StudyDate": None})
        check_headers([source_header(good), source_header(without_date)], RULES["hounsfield"], "s")
        with pytest.raises(ValueError, match=f"^s: {sentence}"):
            check_headers([source_header(bad)], RULES["hounsfield"], "s")
        if "FrameOfReferenceUID" not in fields:
            check_headers([source_header(bad, deidentify=True)], RULES["hounsfield"], "s")
        else:
            check_headers([source_header(bad)], RULES["magnitude"], "s")
