"""DICOM results in a folder, all of them or none."""

import shutil
from pathlib import Path

import highdicom
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from clinbundles.scripts.bundle import ROOT, run_configs
from clinbundles.scripts.deploy.inference import opened
from clinbundles.scripts.deploy.series import read_headers
from clinbundles.scripts.deploy.study import Settings, linked, make_results, run_pictures

COVID = ROOT / "bundles" / "covid_xray_transfer"
SAMPLES = COVID / "samples" / "images"


def test_results_are_written_at_once_and_a_refused_image_leaves_nothing(tmp_path: Path) -> None:
    image = dcmread(SAMPLES / "IM-normal.dcm")
    lateral = dcmread(SAMPLES / "IM-normal.dcm")
    lateral.ViewPosition = "LL"
    lateral.save_as(tmp_path / "lateral.dcm")
    with opened("covid_xray_transfer") as bundle:
        settings = Settings(SAMPLES, tmp_path / "out", deidentify=True)
        files, _ = make_results(bundle, [image], settings)
        assert [file.name for file in files] == ["sr.dcm"]
        assert dcmread(files[0]).PatientIdentityRemoved == "YES"
        with pytest.raises(ValueError, match=r"^image at place 1: ViewPosition is 'LL', not frontal") as caught:
            make_results(bundle, [dcmread(tmp_path / "lateral.dcm")], Settings(tmp_path, tmp_path / "other"))
    assert "/series/" not in str(caught.value)
    assert "lateral.dcm" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lateral.dcm", "out"]


def test_a_slice_that_is_refused_is_named_by_its_numbers(tmp_path: Path) -> None:
    image = dcmread(SAMPLES / "IM-normal.dcm")
    image.SeriesNumber, image.InstanceNumber, image.FrameOfReferenceUID = 4, 7, "1.2.3.5"
    image.save_as(tmp_path / "Doe_Jane.dcm")
    with (
        opened("ct_datasetgan") as bundle,
        pytest.raises(ValueError, match=r"^image 7 of series 4: Modality is") as caught,
    ):
        make_results(bundle, read_headers(tmp_path), Settings(tmp_path, tmp_path / "out"))
    assert "Doe" not in str(caught.value)


def test_an_image_without_preamble_is_linked_as_a_whole_file(tmp_path: Path) -> None:
    image = dcmread(SAMPLES / "IM-normal.dcm")
    content = (SAMPLES / "IM-normal.dcm").read_bytes()
    (tmp_path / "bare").write_bytes(content[144 + int.from_bytes(content[140:144], "little") :])
    with linked(read_headers(tmp_path), as_volume=False) as ((link,), _):
        assert dcmread(link) == image
        assert dcmread(link).file_meta.TransferSyntaxUID == image.file_meta.TransferSyntaxUID


def test_of_a_series_of_two_x_rays_the_report_has_each_with_its_own_probabilities(tmp_path: Path) -> None:
    first, second = dcmread(SAMPLES / "IM-normal.dcm"), dcmread(SAMPLES / "IM-normal.dcm")
    second.PixelData = (second.pixel_array // 2 + np.arange(320, dtype=np.uint16)).astype(np.uint16).tobytes()
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    second.save_as(tmp_path / "second.dcm")
    with opened("covid_xray_transfer") as bundle:
        settings = Settings(SAMPLES, tmp_path / "out")
        (*pictures, file), _ = make_results(bundle, [first, dcmread(tmp_path / "second.dcm")], settings)
        (_, alone), _ = make_results(bundle, [dcmread(tmp_path / "second.dcm")], Settings(SAMPLES, tmp_path / "alone"))
    assert [picture.name for picture in pictures] == ["overlay_1.dcm", "overlay_2.dcm"]
    groups, (own,) = groups_of(file), groups_of(alone)
    assert [uid for uid, _ in groups] == [first.SOPInstanceUID, "1.2.3.4.5"]
    assert groups[1] == own
    assert groups[0][1] != own[1]


def test_the_grad_cam_of_an_x_ray_is_the_bundles_own_picture_as_a_secondary_capture(tmp_path: Path) -> None:
    image = dcmread(SAMPLES / "IM-normal.dcm")
    image.save_as(tmp_path / "image.dcm")
    run_configs(COVID, ["inference"], dataset_dir=str(tmp_path), output_dir=str(tmp_path / "own"), overlays=True)
    (own,) = (tmp_path / "own" / "overlays").iterdir()
    with opened("covid_xray_transfer") as bundle:
        make_results(bundle, [image], Settings(SAMPLES, tmp_path / "out"))
        files, _ = make_results(bundle, [image], Settings(SAMPLES, tmp_path / "none", options={"overlays": False}))
    picture = dcmread(tmp_path / "out" / "overlay.dcm")
    assert np.array_equal(picture.pixel_array, np.asarray(Image.open(own).convert("RGB")))
    assert picture.SourceImageSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
    assert picture.SeriesDescription == "covid_xray_transfer Grad-CAM"
    assert [file.name for file in files] == ["sr.dcm"]


def groups_of(file: Path) -> list[tuple[str, list[float]]]:
    """Of each group of a report the image and the numbers."""
    groups = []
    for group in highdicom.sr.srread(file).content.get_image_measurement_groups():
        (image,) = [item for item in group[0].ContentSequence if item.ValueType == "IMAGE"]
        numbers = [float(each.value) for each in group.get_measurements()]
        groups.append((image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID, numbers))
    return groups


def test_pictures_give_what_the_bundle_writes_for_them(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(SAMPLES / "48c4542c.png", tmp_path / "in")
    with opened("covid_xray_transfer") as bundle:
        run_pictures(bundle, Settings(tmp_path / "in", tmp_path / "out"))
        assert (tmp_path / "out" / "predictions.json").is_file()
        with pytest.raises(ValueError, match="is there already, with other files"):
            run_pictures(bundle, Settings(tmp_path / "in", tmp_path / "out"))
