"""Packed bundles in the real server of MONAI Label, over HTTP."""

import io
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
import requests
import tifffile
from PIL import Image

from clinbundles.scripts.bundle import ROOT, run_configs
from clinbundles.scripts.pack.run import pack

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings("ignore"),
]

SAMPLES = {
    "gaze_polyp_segmentation": "PolypGen2021_MultiCenterData_v3/data_C1/images_C1",
    "two_stage_segmentation": "images",
    "covid_xray_transfer": "images",
    "pace_cell_segmentation": "images",
    "ct_datasetgan": "images",
}
N_IMAGES = 2


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def serve(folder: Path, *words: str, port: int) -> tuple[subprocess.Popen, list[str]]:
    """Start ``clinbundles label start`` and wait for its line: the process, and what it printed."""
    command = [sys.executable, "-m", "clinbundles.scripts.cli", "label", "start", *words, "--port", str(port)]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if "(log: " in line:
            break
    return process, lines


def stop(process: subprocess.Popen) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(60)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of a few sample images of each bundle."""
    folder = tmp_path_factory.mktemp("images")
    for name, samples in SAMPLES.items():
        files = sorted(path for path in (ROOT / "bundles" / name / "samples" / samples).iterdir() if path.is_file())
        # Two of each kind, among them a DICOM file.
        chosen = {file: None for suffix in sorted({f.suffix for f in files}) for file in files if file.suffix == suffix}
        for file in [*list(chosen)[:1], *list(chosen)[-1:]][:N_IMAGES]:
            (folder / name).mkdir(exist_ok=True)
            shutil.copy(file, folder / name / file.name)
    return {name: folder / name for name in SAMPLES}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, images: dict[str, Path]) -> Iterator[SimpleNamespace]:
    """All bundles, packed, and served."""
    folder = tmp_path_factory.mktemp("server")
    pack(all=True, out=str(folder / "dist"))
    (folder / "studies").mkdir()
    for place in images.values():
        for file in place.iterdir():
            shutil.copy(file, folder / "studies" / file.name)
    port = free_port()
    process, lines = serve(folder, "dist", "studies", port=port)
    assert process.poll() is None, lines
    yield SimpleNamespace(url=f"http://127.0.0.1:{port}", folder=folder, studies=folder / "studies", process=process)
    stop(process)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, images: dict[str, Path]) -> Callable[[str], Path]:
    """The outputs of a bundle's own inference on its images."""
    folder = tmp_path_factory.mktemp("own")

    def outputs(name: str) -> Path:
        if not (folder / name).is_dir():
            place = ROOT / "bundles" / name
            run_configs(place, ["inference"], dataset_dir=str(images[name]), output_dir=str(folder / name))
        return folder / name

    return outputs


def infer(server: SimpleNamespace, model: str, image: str, *, output: str = "image", **params: Any) -> Any:
    query, form = {"image": image, "output": output}, {"params": json.dumps(params)}
    answer = requests.post(f"{server.url}/infer/{model}", params=query, data=form, timeout=300)
    assert answer.status_code == 200, answer.text
    return answer.json() if output == "json" else answer.content


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / max(1.0, float(one.sum() + other.sum()))


def test_the_server_lists_every_bundle_with_the_values_of_its_masks(server: SimpleNamespace) -> None:
    models = requests.get(f"{server.url}/info/", timeout=60).json()["models"]
    assert {name: (model["type"], model["labels"]) for name, model in models.items()} == {
        "gaze_polyp_segmentation": ("segmentation", {"polyp": 1}),
        "two_stage_segmentation": ("segmentation", {"vessel": 1}),
        "covid_xray_transfer": ("classification", {"normal": 0, "bacterial": 1, "covid19": 2}),
        "pace_cell_segmentation": ("segmentation", {"cell": 1}),
        "ct_datasetgan": ("segmentation", {"body": 1, "left lung": 2, "right lung": 3}),
    }


@pytest.mark.parametrize("name", ["gaze_polyp_segmentation", "two_stage_segmentation"])
def test_a_mask_is_that_of_the_bundles_own_inference(
    server: SimpleNamespace, images: dict[str, Path], own: Callable[[str], Path], name: str
) -> None:
    files = sorted(images[name].iterdir())
    assert any(width != height for width, height in (Image.open(file).size for file in files))
    for file in files:
        mask = pixels(infer(server, name, file.stem))
        expected = np.asarray(Image.open(own(name) / "masks" / f"{file.stem}.png")) > 0
        assert mask.dtype == np.uint8
        assert mask.shape == expected.shape
        assert set(np.unique(mask)) == {0, 1}
        assert dice(mask > 0, expected) >= 0.999


def test_the_probabilities_of_classes_are_the_bundles_own(
    server: SimpleNamespace, images: dict[str, Path], own: Callable[[str], Path]
) -> None:
    table = pd.read_csv(own("covid_xray_transfer") / "per_image.csv").set_index("image")
    files = sorted(images["covid_xray_transfer"].iterdir())
    assert ".dcm" in {file.suffix for file in files}
    for file in files:
        listed = infer(server, "covid_xray_transfer", file.stem, output="json")["prediction"]
        assert [entry["label"] for entry in listed] == ["normal", "bacterial", "covid19"]
        for entry in listed:
            assert entry["score"] == pytest.approx(table.loc[file.name, f"probability_{entry['label']}"], abs=1e-3)


def test_cells_are_a_label_map_and_outlines(
    server: SimpleNamespace, images: dict[str, Path], own: Callable[[str], Path]
) -> None:
    name = "pace_cell_segmentation"
    for file in sorted(images[name].iterdir()):
        labels = pixels(infer(server, name, file.stem))
        expected = tifffile.imread(own(name) / "label_maps" / f"{file.stem}.tif")
        np.testing.assert_array_equal(labels, expected)
        (annotation,) = infer(server, name, file.stem, output="json")["annotations"]
        contours = annotation["elements"][0]["contours"]
        assert len(contours) >= len(np.unique(expected)) - 1 > 0
        height, width = expected.shape
        assert np.max([np.max(contour, axis=0) for contour in contours], axis=0) <= pytest.approx([width, height])


def test_a_label_map_of_slices_is_the_bundles_own(
    server: SimpleNamespace, images: dict[str, Path], own: Callable[[str], Path]
) -> None:
    name = "ct_datasetgan"
    for file in sorted(images[name].iterdir()):
        expected = np.asarray(Image.open(own(name) / "label_maps" / f"{file.stem}.png"))
        np.testing.assert_array_equal(pixels(infer(server, name, file.stem)), expected)


def test_a_label_map_of_a_volume_lies_where_the_volume_lies(server: SimpleNamespace, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 20, (48, 40, 3))
    x, y = np.meshgrid(np.linspace(-1, 1, 48), np.linspace(-1, 1, 40), indexing="ij")
    body = (x**2 / 0.8 + y**2 / 0.5 < 1)[..., None]
    values = np.where(body, 40.0, -1000.0) + noise
    affine = np.array([[-2.0, 0, 0, 30], [0, -2.5, 0, 40], [0, 0, 5, -100], [0, 0, 0, 1]])
    (tmp_path / "in").mkdir()
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), tmp_path / "in" / "volume.nii.gz")
    bundle = ROOT / "bundles" / "ct_datasetgan"
    run_configs(bundle, ["inference"], dataset_dir=str(tmp_path / "in"), output_dir=str(tmp_path / "out"))
    expected = nibabel.load(tmp_path / "out" / "label_maps" / "volume.nii.gz")
    with (tmp_path / "in" / "volume.nii.gz").open("rb") as stream:
        files = {"file": ("volume.nii.gz", stream)}
        answer = requests.post(f"{server.url}/infer/ct_datasetgan?output=image", files=files, timeout=300)
    (tmp_path / "answer.nii.gz").write_bytes(answer.content)
    label_map = nibabel.load(tmp_path / "answer.nii.gz")
    assert len(np.unique(np.asarray(expected.dataobj))) > 1
    np.testing.assert_array_equal(np.asarray(label_map.dataobj), np.asarray(expected.dataobj))
    np.testing.assert_allclose(label_map.affine, affine, atol=1e-4)


def test_what_is_not_there_is_refused_in_a_sentence(server: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff torn")
    with (tmp_path / "torn.jpg").open("rb") as stream:
        files = {"file": ("torn.jpg", stream)}
        torn = requests.post(f"{server.url}/infer/gaze_polyp_segmentation", files=files, timeout=60)
    image = requests.post(f"{server.url}/infer/gaze_polyp_segmentation?image=nothing", timeout=60)
    model = requests.post(f"{server.url}/infer/nothing?image=nothing", timeout=60)
    assert [answer.status_code for answer in (torn, image, model)] == [400, 404, 404]
    assert image.json()["detail"] == "there is no image 'nothing'."
    assert "Traceback" not in torn.json()["detail"]
