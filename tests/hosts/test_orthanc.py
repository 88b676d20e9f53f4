"""A study out of a real PACS (Debian's Orthanc), through a bundle, and the results back."""

import base64
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import highdicom
import numpy as np
import pytest
import requests
from pydicom import dcmread

from clinbundles.scripts.bundle import ROOT
from clinbundles.scripts.deploy.pacs import TOKEN, Pacs
from clinbundles.scripts.deploy.run import deploy

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.usefixtures("monai_deploy"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # the host's own
    pytest.mark.skipif(shutil.which("Orthanc") is None, reason="no Orthanc: Debian's orthanc-dicomweb has it"),
]
PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
FRAMES = ROOT / "bundles/gaze_polyp_segmentation/samples/PolypGen2021_MultiCenterData_v3/data_C1/images_C1"
USER, PASSWORD = "user", "secret"


class Orthanc:
    """A server on this machine alone, that can be stopped and started again on what it has stored."""

    def __init__(self, folder: Path) -> None:
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.root = f"http://127.0.0.1:{port}"
        self.url = f"{self.root}/dicom-web"
        self.file = folder / "orthanc.json"
        settings = {
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "HttpPort": port,
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "Plugins": [PLUGIN],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        self.file.write_text(json.dumps(settings))

    def start(self) -> None:
        log = self.file.with_suffix(".log").open("a")
        self.process = subprocess.Popen(["Orthanc", str(self.file)], stdout=log, stderr=log)
        for _ in range(200):
            try:
                requests.get(f"{self.root}/system", timeout=5)
                return
            except requests.ConnectionError:
                assert self.process.poll() is None, self.file.with_suffix(".log").read_text()
                time.sleep(0.1)
        raise AssertionError("Orthanc does not answer")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)

    def get(self, path: str) -> list[dict]:
        return requests.get(f"{self.url}/{path}", auth=(USER, PASSWORD), timeout=30).json()


@pytest.fixture
def orthanc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Orthanc]:
    monkeypatch.setenv(TOKEN, "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode())
    server = Orthanc(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def study(orthanc: Orthanc, as_capture: Callable[..., Path], tmp_path: Path) -> Path:
    """A colonoscopy frame, sent to the server."""
    file = as_capture(sorted(FRAMES.iterdir())[0], tmp_path / "frame.dcm")
    assert Pacs(orthanc.url).store([file]) == 1
    return file


def modalities(orthanc: Orthanc) -> list[str]:
    return sorted(each["00080060"]["Value"][0] for each in orthanc.get("studies/1.2.3.4/instances"))


def test_results_come_back_to_the_pacs_and_a_study_done_twice_has_them_once(
    orthanc: Orthanc, study: Path, packed: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zipped = packed("gaze_polyp_segmentation")
    deploy(zipped, "1.2.3.4", str(tmp_path / "out"), pacs=orthanc.url)
    assert modalities(orthanc) == ["ES", "OT", "SEG", "SR"]
    images = Pacs(orthanc.url).read_study("1.2.3.4")
    (mask,) = [each for each in images if each.Modality == "SEG"]
    Pacs(orthanc.url).fetch([mask], tmp_path)
    read_back = highdicom.seg.segread(tmp_path / "0001.dcm")
    assert np.array_equal(read_back.pixel_array, dcmread(tmp_path / "out" / "seg.dcm").pixel_array)
    assert read_back.pixel_array.any()
    assert str(read_back.PatientName) == "Müller^Jörg"
    deploy(zipped, "1.2.3.4", str(tmp_path / "again"), pacs=orthanc.url)
    assert "already" in capsys.readouterr().out
    assert not (tmp_path / "again").exists()
    assert modalities(orthanc) == ["ES", "OT", "SEG", "SR"]


@pytest.mark.parametrize(
    ("name", "place", "made"),
    [
        ("covid_xray_transfer", "samples/images/IM-normal.dcm", ["OT", "SR"]),
        ("ct_datasetgan", "Lung_Dx-A0002_B40f_8mm", ["OT", "SEG", "SR"]),
        ("pace_cell_segmentation", "samples/images", ["ANN", "OT", "SEG", "SR"]),
        ("two_stage_segmentation", "samples/images", ["OT", "SEG", "SR"]),
    ],
)
def test_the_other_bundles_take_their_study_from_the_pacs_and_give_results_back_too(
    name: str,
    place: str,
    made: list[str],
    orthanc: Orthanc,
    packed: Callable[[str], str],
    as_capture: Callable[..., Path],
    shared_data: Path,
    tmp_path: Path,
) -> None:
    path = ROOT / "bundles" / name / place
    if name == "ct_datasetgan":
        files = sorted((shared_data / "dicom" / "ct_series" / place).iterdir())
    else:
        files = [path] if path.is_file() else [as_capture(sorted(path.iterdir())[0], tmp_path / "image.dcm")]
    first = dcmread(files[0])
    assert Pacs(orthanc.url).store(files) == len(files)
    deploy(packed(name), str(first.StudyInstanceUID), str(tmp_path / "out"), pacs=orthanc.url)
    kinds = [each["00080060"]["Value"][0] for each in orthanc.get(f"studies/{first.StudyInstanceUID}/instances")]
    assert sorted(kinds) == sorted([str(first.Modality)] * len(files) + made)


def test_a_server_that_stops_in_the_middle_costs_nothing(
    orthanc: Orthanc,
    study: Path,
    packed: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = Pacs.store

    def stop_after_one(self: Pacs, files: list[Path]) -> int:
        store(self, files[:1])
        orthanc.stop()
        return store(self, files)

    zipped = packed("gaze_polyp_segmentation")
    with monkeypatch.context() as patch:
        patch.setattr(Pacs, "store", stop_after_one)
        with pytest.raises(ValueError, match=r"127.*cannot be reached.*goes on later"):
            deploy(zipped, "1.2.3.4", str(tmp_path / "out"), pacs=orthanc.url)
    made = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    orthanc.start()
    assert len(modalities(orthanc)) == 2
    deploy(zipped, "1.2.3.4", str(tmp_path / "out"), pacs=orthanc.url)
    assert "sent to" in capsys.readouterr().out
    assert modalities(orthanc) == ["ES", "OT", "SEG", "SR"]
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == made


def test_a_wrong_token_an_unknown_study_and_no_server_are_a_sentence_each(
    orthanc: Orthanc, packed: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped, out = packed("gaze_polyp_segmentation"), tmp_path / "out"
    with pytest.raises(ValueError, match=r"holds no study 1\.2\.99"):
        deploy(zipped, "1.2.99", str(out), pacs=orthanc.url)
    with pytest.raises(ValueError, match="--deidentify and --pacs"):
        deploy(zipped, "1.2.99", str(out), pacs=orthanc.url, deidentify=True)
    monkeypatch.setenv(TOKEN, "wrong")
    with pytest.raises(ValueError, match=rf"refuses access \(401\); {TOKEN}"):
        deploy(zipped, "1.2.99", str(out), pacs=orthanc.url)
    orthanc.stop()
    with pytest.raises(ValueError, match=r"cannot be reached \(ConnectionError\)"):
        deploy(zipped, "1.2.99", str(out), pacs=orthanc.url)
    assert not out.exists()
