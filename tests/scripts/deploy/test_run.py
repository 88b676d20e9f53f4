"""What `clinbundles deploy` refuses before anything runs; tests/hosts runs it."""

from pathlib import Path

import pytest
from pydicom import dcmread

from clinbundles.scripts.bundle import ROOT
from clinbundles.scripts.deploy.inference import opened
from clinbundles.scripts.deploy.run import deploy, made_before
from clinbundles.scripts.deploy.study import Settings, make_results

SAMPLE = ROOT / "bundles" / "covid_xray_transfer" / "samples" / "images" / "IM-normal.dcm"


def test_what_cannot_be_is_said_and_nothing_is_written(tmp_path: Path) -> None:
    study, out = str(SAMPLE), str(tmp_path / "out")
    (tmp_path / "file").write_text("")
    for arguments, options, sentence in (
        (("covid_xray_transfer", study, out), {"report": "pdf"}, "--report is 'pdf', expected structured or text"),
        (("covid_xray_transfer", study, str(tmp_path / "file")), {}, "expected a new folder in a folder that exists"),
        (("covid_xray_transfer", study, out), {"no_such": 1}, "--no_such is no value of inference.json"),
        (("covid_xray_transfer", study, out), {"pacs": "127.0.0.1"}, "expected http://HOST:PORT/PATH"),
        (("covid_xray_transfer", str(tmp_path / "no"), out), {}, "no such file"),
        (("ct_datasetgan", study, out), {}, "holds no series of kind CT; there are 1 of CR MONOCHROME1"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=sentence):
            deploy(*arguments, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


@pytest.mark.parametrize("option", [{"deidentify": True}, {"series": "1.2"}, {"report": "text"}])
def test_what_is_for_dicom_alone_is_refused_for_pictures(option: dict, tmp_path: Path) -> None:
    (name,) = option
    picture, out = SAMPLE.parent / "48c4542c.png", tmp_path / "out"
    with pytest.raises(ValueError, match=rf"holds no DICOM file, and --{name} is for DICOM alone"):
        deploy("covid_xray_transfer", str(picture), str(out), **option)
    assert not out.exists()


def test_a_folder_with_the_same_results_is_known_and_another_refused(tmp_path: Path) -> None:
    image = dcmread(SAMPLE)
    settings = Settings(SAMPLE.parent, tmp_path / "out")
    with opened("covid_xray_transfer") as bundle:
        assert not made_before(bundle, [image], settings)
        make_results(bundle, [image], settings)
        assert made_before(bundle, [image], settings)
        with pytest.raises(ValueError, match="is there already, with other files"):
            made_before(bundle.told_apart_by({"force": True}), [image], settings)


def test_uids_are_kept_on_request_of_deidentified_results_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--keep_uids is for --deidentify alone"):
        deploy("covid_xray_transfer", str(SAMPLE.parent), str(tmp_path / "out"), keep_uids=True)
    assert not (tmp_path / "out").exists()
