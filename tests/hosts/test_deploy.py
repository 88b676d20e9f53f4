"""Packed bundles in real applications of MONAI Deploy, from DICOM to DICOM."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import highdicom
import pytest
from pydicom import Dataset, dcmread

from clinbundles.scripts.bundle import ROOT, run_configs
from clinbundles.scripts.deploy.run import deploy

pytest.importorskip("monai.deploy.core", reason="no MONAI Deploy: the extra deploy brings it")
pytestmark = [
    pytest.mark.hosts,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # the host's own
]

BUNDLES = ROOT / "bundles"


def errors_of(path: Path) -> list[str]:
    """What dciodvfy calls an error in a file."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("no dciodvfy: Debian's dicom3tools has it")
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False, errors="replace")
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


def numbers_of(report: Dataset) -> dict[str, float]:
    """Numbers of a structured report by what they measure, in order."""
    content = highdicom.sr.ComprehensiveSR.from_dataset(report).content
    (groups,) = [[*content.get_image_measurement_groups()]]
    measurements = [each for group in groups for each in group.get_measurements()]
    return {each.name.meaning: float(each.value) for each in measurements}


XRAYS = ("RG1_J2KI.dcm", "gdcm-CR-MONO1-10-chest.dcm", "highdicom_dx_image.dcm")


@pytest.mark.parametrize("name", ["sample", *XRAYS])
def test_a_report_has_the_class_and_probabilities_of_the_bundles_own_inference(
    name: str,
    packed: Callable[[str], str],
    as_study: Callable[..., str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    folder = BUNDLES / "covid_xray_transfer"
    if name == "sample":
        file = folder / "samples" / "images" / "IM-normal.dcm"
    else:
        file = request.getfixturevalue("shared_data") / "dicom" / "cxr" / name
    study = as_study(file)
    run_configs(folder, ["inference"], dataset_dir=study, output_dir=str(tmp_path / "own"))
    (own,) = json.loads((tmp_path / "own" / "predictions.json").read_text())
    deploy(packed("covid_xray_transfer"), study, str(tmp_path / "out"))
    report = dcmread(tmp_path / "out" / "sr.dcm")
    numbers = numbers_of(report)
    assert list(own["probabilities"]) == ["normal", "bacterial", "covid19"]
    assert list(numbers.values()) == pytest.approx(list(own["probabilities"].values()), abs=1e-4)
    (group,) = highdicom.sr.ComprehensiveSR.from_dataset(report).content.get_image_measurement_groups()
    (evaluation,) = [e for e in group.get_qualitative_evaluations() if e.name.meaning == "Predicted class"]
    codes = {"normal": "17621005", "bacterial": "53084003", "covid19": "882784691000119100"}
    assert evaluation.value.value == codes[own["prediction"]]
    source = dcmread(file)
    images = [item for item in group[0].ContentSequence if item.ValueType == "IMAGE"]
    assert [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in images] == [source.SOPInstanceUID]
    assert report.StudyInstanceUID == source.StudyInstanceUID
    assert errors_of(tmp_path / "out" / "sr.dcm") == []
