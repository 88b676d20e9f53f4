"""Packed bundles in the real server of MONAI Label, over HTTP."""

import io
import json
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
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
from clinbundles.scripts.label.client import ask
from clinbundles.scripts.label.models import ServedBundle
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
    process.communicate(timeout=60)
    return process.returncode


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
    lungs = {"body": [0, 114, 178], "left lung": [230, 159, 0], "right lung": [0, 158, 115]}
    assert models["ct_datasetgan"]["label_colors"] == lungs


def test_the_request_of_the_readme_brings_a_mask(
    server: SimpleNamespace, images: dict[str, Path], tmp_path: Path
) -> None:
    (line,) = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("curl ")]
    (image, *_) = sorted(images["gaze_polyp_segmentation"].iterdir())
    words = shlex.split(line.replace("http://127.0.0.1:8000", server.url).replace("frame_17", image.stem))
    subprocess.run(words, cwd=tmp_path, check=True, timeout=300)
    assert (tmp_path / "mask.png").read_bytes() == infer(server, "gaze_polyp_segmentation", image.stem)


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


def test_a_zip_with_the_network_in_onnx_is_served_as_the_full_one_and_a_pure_one_refused(
    tmp_path: Path, images: dict[str, Path], own: Callable[[str], Path]
) -> None:
    name = "covid_xray_transfer"
    pack(name, out=str(tmp_path / "onnx"), runtime="onnx")
    pack(name, out=str(tmp_path / "pure"), profile="pure")
    shutil.copytree(images[name], tmp_path / "studies")  # the server has files of its own there
    process, lines = serve(tmp_path, "pure", "studies", port=free_port())
    assert process.wait(60) != 0
    assert "is a pure zip" in "".join(lines)
    port = free_port()
    process, lines = serve(tmp_path, "onnx", "studies", port=port)
    assert process.poll() is None, lines
    try:
        server = SimpleNamespace(url=f"http://127.0.0.1:{port}")
        table = pd.read_csv(own(name) / "per_image.csv").set_index("image")
        for file in sorted(images[name].iterdir()):
            for entry in infer(server, name, file.stem, output="json")["prediction"]:
                assert entry["score"] == pytest.approx(table.loc[file.name, f"probability_{entry['label']}"], abs=1e-3)
    finally:
        stop(process)


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
        farthest = np.max([np.max(contour, axis=0) for contour in contours], axis=0)
        assert (farthest <= [width, height]).all()


def test_label_maps_are_the_bundles_own_and_lie_where_the_volume_lies(
    server: SimpleNamespace, images: dict[str, Path], own: Callable[[str], Path], tmp_path: Path
) -> None:
    name = "ct_datasetgan"
    files = sorted(images[name].iterdir())
    assert {file.suffix for file in files} == {".gz", ".png"}
    for file in files:
        content = infer(server, name, file.name.partition(".")[0])
        expected = own(name) / "label_maps" / file.name
        if file.suffix == ".png":
            np.testing.assert_array_equal(pixels(content), np.asarray(Image.open(expected)))
            continue
        (tmp_path / file.name).write_bytes(content)
        ours, theirs = nibabel.load(expected), nibabel.load(tmp_path / file.name)
        assert len(np.unique(np.asarray(ours.dataobj))) > 1
        np.testing.assert_array_equal(np.asarray(theirs.dataobj), np.asarray(ours.dataobj))
        np.testing.assert_allclose(theirs.affine, ours.affine, atol=1e-4)


def test_what_is_not_there_is_refused_in_a_sentence(server: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff torn")
    with (tmp_path / "torn.jpg").open("rb") as stream:
        files = {"file": ("torn.jpg", stream)}
        torn = requests.post(f"{server.url}/infer/gaze_polyp_segmentation", files=files, timeout=60)
    image = requests.post(f"{server.url}/infer/gaze_polyp_segmentation?image=nothing", timeout=60)
    model = requests.post(f"{server.url}/infer/nothing?image=nothing", timeout=60)
    elsewhere = next((ROOT / "bundles" / "gaze_polyp_segmentation" / "samples").rglob("*.jpg"))
    query = {"image": str(elsewhere), "output": "image"}
    other = requests.post(f"{server.url}/infer/gaze_polyp_segmentation", params=query, timeout=60)
    assert [answer.status_code for answer in (torn, image, model, other)] == [400, 404, 404, 404]
    assert image.json()["detail"] == "there is no image 'nothing'."
    assert "Traceback" not in torn.json()["detail"]


def label_as_seen(server: SimpleNamespace, model: str, images: list[Path]) -> None:
    """Take what a model sees in images for their labels."""
    for file in images:
        files = {"label": (f"{file.stem}.png", infer(server, model, file.stem, model_filename="model.pt"))}
        query = {"image": file.stem, "tag": "final"}
        assert requests.put(f"{server.url}/datastore/label", params=query, files=files, timeout=60).ok


def train_until(server: SimpleNamespace, model: str, line: str, **values: Any) -> dict[str, Any]:
    """Start a training, and wait for a line of it or its end."""
    assert requests.post(f"{server.url}/train/{model}", json=values, timeout=60).ok
    ends = time.monotonic() + 600
    while time.monotonic() < ends:
        task = requests.get(f"{server.url}/train/", timeout=60).json()
        said = any(line in each for each in task.get("details", []))
        if said or task["status"] not in ("SUBMITTED", "RUNNING"):
            return task
        time.sleep(0.5)
    raise TimeoutError(task)


def test_a_training_is_used_by_the_next_inference_and_one_that_is_stopped_changes_nothing(
    server: SimpleNamespace, images: dict[str, Path]
) -> None:
    name = "gaze_polyp_segmentation"
    files = sorted(images[name].iterdir())
    label_as_seen(server, name, files)
    before = {path: path.read_bytes() for path in server.folder.rglob(f"{name}/models/model.*")}
    assert len(before) == 2
    shipped = infer(server, name, files[0].stem, output="json")["uncertainty"]
    task = train_until(server, name, "no such line", max_epochs=1, learning_rate=0.01, pretrained=False)
    assert task["status"] == "DONE", task["details"]
    assert {path: path.read_bytes() for path in before} == before
    trained = infer(server, name, files[0].stem, output="json")["uncertainty"]
    assert trained != shipped
    assert infer(server, name, files[0].stem, output="json", model_filename="model.pt")["uncertainty"] == shipped
    config = requests.get(f"{server.url}/info/", timeout=60).json()["models"][name]["config"]
    assert config["model_filename"] == ["trained.pt", "model.pt"]
    task = train_until(server, name, "epoch 1 of", max_epochs=100_000)
    assert task["status"] == "RUNNING", task["details"]
    assert requests.delete(f"{server.url}/train/", timeout=60).json()["status"] == "STOPPED"
    assert infer(server, name, files[0].stem, output="json")["uncertainty"] == trained


def test_a_request_that_would_run_code_is_refused_in_a_sentence(server: SimpleNamespace) -> None:
    task = train_until(server, "gaze_polyp_segmentation", "no such line", learning_rate="$print(1)")
    assert task["status"] == "ERROR"
    assert task["details"][-1] == "learning_rate: '$print(1)' would run code; give a plain value."


def test_the_image_to_label_next_is_the_least_sure_one(server: SimpleNamespace) -> None:
    name = "ct_datasetgan"
    query = {"most": 100}
    answer = requests.post(f"{server.url}/activelearning/unsure_{name}", json=query, timeout=600).json()
    readable = {}
    for file in (file for file in server.studies.iterdir() if file.is_file()):
        query = {"image": file.name.partition(".")[0], "output": "json"}
        told = requests.post(f"{server.url}/infer/{name}", params=query, timeout=300)
        if told.ok:
            readable[query["image"]] = told.json()["uncertainty"]
    labelled = {file.stem for file in (server.studies / "labels" / "final").iterdir()}
    unlabelled = {image: value for image, value in readable.items() if image not in labelled}
    assert len(unlabelled) > 2
    assert answer["id"] == max(unlabelled, key=unlabelled.__getitem__)
    assert answer["weight"] == pytest.approx(max(unlabelled.values()), abs=1e-5)


def test_a_server_with_a_token_answers_those_who_bring_it(server: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef")
    (tmp_path / "studies").mkdir()
    port, words = free_port(), ["covid_xray_transfer", "studies", "--token_file", "token"]
    process, lines = serve(tmp_path, *words, port=port)
    try:
        assert process.poll() is None, lines
        url = f"http://127.0.0.1:{port}"
        info = ask(url, "/info/", token="0123456789abcdef")
        assert list(info["models"]) == ["covid_xray_transfer"]
        for token in (None, "0123456789abcdeg"):
            with pytest.raises(ValueError, match="this server asks for a token"):
                ask(url, "/info/", token=token)
        again, lines = serve(tmp_path, *words, "--output_dir", "other", port=port)
        assert stop(again) == 1
        assert ": starting: " in lines[0]
        assert len(lines) == 2
        assert "Address already in use" in lines[1]
    finally:
        stop(process)
    with pytest.raises(ConnectionError, match="no server answers there"):
        ask(url, "/info/", token="0123456789abcdef")


def test_the_way_over_http_takes_no_longer_than_the_inference_itself(server: SimpleNamespace, tmp_path: Path) -> None:
    name = "gaze_polyp_segmentation"
    frame = next(file for file in server.studies.iterdir() if file.suffix == ".jpg")
    Image.open(frame).resize((512, 512)).save(tmp_path / "square.png")
    shutil.copy(tmp_path / "square.png", server.studies / "square.png")
    bundle = ServedBundle(ROOT / "bundles" / name)
    while "square" not in requests.get(f"{server.url}/datastore/?output=all", timeout=60).json()["objects"]:
        time.sleep(0.2)
    ways = {
        "http": lambda: infer(server, name, "square", model_filename="model.pt"),
        "here": lambda: bundle.infer(tmp_path / "square.png"),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(9):
        for way, call in ways.items():
            began = time.perf_counter()
            call()
            seconds[way].append(time.perf_counter() - began)
    ratio = np.median(seconds["http"][1:]) / np.median(seconds["here"][1:])
    print(f"HTTP / in process: {ratio:.2f}")
    assert ratio <= 2
