"""What this bundle promises beyond the contract: its arms, gaze at inference, DICOM frames, a killed process."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from clinbundles.engines.checkpoint import epochs_done
from clinbundles.engines.sentences import sentence_of
from clinbundles.scripts.bundle import open_configs, run_configs, tracking_file
from clinbundles.scripts.verbs import VERBS

BUNDLE = Path(__file__).parents[2] / "bundles" / "gaze_polyp_segmentation"
SMALL: dict[str, Any] = {"image_size": 64, "batch_size": 4, "channels": [8, 8, 8, 8, 8, 8], "device": "cpu"}


def first_training_image(arm: str, **overrides: Any) -> torch.Tensor:
    """The first training item after blurring and before anything else that is random."""
    parser = open_configs(BUNDLE, ["train"], arm=arm, cache_rate=0.0, **SMALL, **overrides)
    transforms = parser.get_parsed_content("image_transforms")
    item = dict(parser.get_parsed_content("train#dataset#data")[0])
    blur = [t for t in parser.get_parsed_content("random_transforms") if "Blur" in type(t).__name__]
    assert len(blur) == (arm != "original")
    for transform in [*transforms, *blur]:
        item = transform(item)
    return torch.as_tensor(item["image"])


def detail(image: torch.Tensor) -> float:
    """Mean absolute difference of neighbouring pixels."""
    return float(image.diff(dim=-1).abs().mean() + image.diff(dim=-2).abs().mean())


def test_the_arms_differ_in_blur_as_the_equations_say() -> None:
    fixed = {"sigma_min": 0.8, "sigma_max": 0.8, "sigma_reference_size": 128}
    original = detail(first_training_image("original"))
    positive = detail(first_training_image("positive", **fixed))
    reverse = detail(first_training_image("reverse", **fixed))
    assert positive < reverse < original


def test_the_papers_networks_have_its_width_and_size() -> None:
    parser = open_configs(BUNDLE, ["paper"])
    assert sum(p.numel() for p in parser.get_parsed_content("network_def").parameters()) > 7e6
    assert parser["image_size"] == 512


@pytest.mark.parametrize("more", [[], ["multi_gpu_train"]])
def test_channels_last_changes_the_order_of_the_weights_in_memory_and_no_weight(
    more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    weights = []
    for channels_last in (False, True):
        parser = open_configs(BUNDLE, ["train", *more], channels_last=channels_last)
        for step in parser["initialize"][-2:]:  # the seed, then the order
            parser.get_parsed_content(f"initialize#{parser['initialize'].index(step)}")
        network = parser.get_parsed_content("network_def")
        weights.append(max((p for p in network.parameters() if p.ndim == 4), key=torch.Tensor.numel))
    assert weights[0].is_contiguous()
    assert weights[1].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(*weights)


def test_an_arm_that_needs_gaze_stops_without_it_unless_told_otherwise(tmp_path: Path) -> None:
    datalist = json.loads((BUNDLE / "samples" / "datalist.json").read_text())
    for item in datalist["training"]:
        del item["fixations"]
    (tmp_path / "list.json").write_text(json.dumps(datalist))
    with pytest.raises(KeyError, match=r"\.jpg: no attention map at 'attention', which is made from fixations") as stop:
        first_training_image("positive", datalist=str(tmp_path / "list.json"))
    ways = ("--arm original trains", "clinbundles simulate-gaze draws", "--allow_missing_gaze true")
    assert all(way in str(stop.value) for way in ways)
    assert "simulate-gaze" in VERBS
    tracked = {"tracking": str(tracking_file()), "tracking_uri": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    with pytest.raises(RuntimeError) as error:
        run_configs(BUNDLE, ["train"], datalist=str(tmp_path / "list.json"), ckpt_dir=str(tmp_path / "out"), **tracked)
    assert str(sentence_of(error.value)).startswith("the datalist has no gaze: add --arm original")
    assert not list(tmp_path.glob("mlflow.db*"))
    passed = first_training_image("positive", datalist=str(tmp_path / "list.json"), allow_missing_gaze=True)
    assert torch.equal(passed, first_training_image("original", datalist=str(tmp_path / "list.json")))


def test_shipped_gaze_is_marked_simulated_and_in_training_only() -> None:
    datalist = json.loads((BUNDLE / "samples" / "datalist.json").read_text())
    assert datalist["gaze"]["source"] == "simulated"
    assert all(item["gaze_source"].startswith("simulated") for item in datalist["training"])
    assert not any("fixations" in item for section in ("validation", "test") for item in datalist[section])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights for the small network: the tests below are about files, not about quality."""
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.manual_seed(0)
    network = open_configs(BUNDLE, ["inference"], **SMALL).get_parsed_content("network_def")
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """One frame as JPEG and, in another size, as DICOM secondary capture."""
    source = next((BUNDLE / "samples").rglob("*.jpg"))
    folder = tmp_path / "frames"
    folder.mkdir()
    shutil.copy(source, folder / "frame.jpg")
    with Image.open(source) as image:
        pixels = np.asarray(image.resize((150, 100)))
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    dataset.Modality, dataset.PatientName, dataset.PatientID = "ES", "Doe^Jane", "4711"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 100, 150, 3
    dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = pixels.tobytes()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(folder / "capture.dcm", enforce_file_format=True)
    return folder


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def infer(frames: Path, weights: Path, output: Path, **overrides: Any) -> dict[str, dict[str, str]]:
    paths = {"dataset_dir": str(frames), "ckpt_path": str(weights), "output_dir": str(output)}
    run_configs(BUNDLE, ["inference"], **paths, **{**SMALL, "batch_size": 1, **overrides})
    return {row["image"]: row for row in csv.DictReader((output / "per_image.csv").read_text().splitlines())}


def test_jpeg_and_dicom_frames_get_masks_in_their_own_size_and_no_patient_name(
    frames: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    log = {"logging_file": str(BUNDLE / "configs" / "logging.conf")}
    rows = infer(frames, weights, tmp_path / "out", **log)
    assert (rows["capture.dcm"]["height"], rows["capture.dcm"]["width"]) == ("100", "150")
    for name, size in (("capture", (150, 100)), ("frame", size_of(frames / "frame.jpg"))):
        for kind in ("masks", "overlays"):
            assert size_of(tmp_path / "out" / kind / f"{name}.png") == size
    said = "".join(capsys.readouterr()) + (tmp_path / "out" / "per_image.csv").read_text()
    assert "INFO" in said
    assert "Doe" not in said
    assert "4711" not in said


def test_gaze_at_inference_changes_only_the_image_it_belongs_to(frames: Path, weights: Path, tmp_path: Path) -> None:
    (frames.parent / "gaze.csv").write_text(
        "IMAGE,CURRENT_FIX_INDEX,CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION,CURRENT_FIX_PUPIL,CURRENT_FIX_START,"
        "IMAGE_HEIGHT,IMAGE_WIDTH\nframe.jpg,1,0.5,0.5,300,1,0,8,8\n"
    )
    without = infer(frames, weights, tmp_path / "without")
    blurred = infer(
        frames, weights, tmp_path / "with", gaze_file=str(frames.parent / "gaze.csv"), blur_at="all", sigma_base=2.0
    )
    assert blurred["capture.dcm"] == without["capture.dcm"]
    assert blurred["frame.jpg"]["max_probability"] != without["frame.jpg"]["max_probability"]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_corrupt_frame_costs_its_row_and_no_other(
    frames: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture, batch_size: int
) -> None:
    whole = infer(frames, weights, tmp_path / "whole")
    assert "2 in, 2 used, 0 left out.\n" in capsys.readouterr().out
    jpeg = (frames / "frame.jpg").read_bytes()
    (frames / "b.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    rows = infer(frames, weights, tmp_path / "out", batch_size=batch_size)
    assert "3 in, 2 used, 1 left out: per_image.csv says why.\n" in capsys.readouterr().out
    assert list(rows) == ["b.jpg", "capture.dcm", "frame.jpg"]
    assert rows["b.jpg"].pop("failure").startswith("b.jpg: not a readable image file")
    assert rows["b.jpg"].pop("weights") == rows["frame.jpg"]["weights"]
    assert set(rows["b.jpg"].values()) == {"b.jpg", ""}
    for name in ("capture", "frame"):
        written = [(tmp_path / out / "masks" / f"{name}.png").read_bytes() for out in ("whole", "out")]
        assert written[0] == written[1]
    assert {name: rows[name] for name in whole} == whole
    for kind in ("masks", "overlays"):
        assert {path.stem for path in (tmp_path / "out" / kind).iterdir()} == {"capture", "frame"}


def test_a_folder_of_nothing_but_corrupt_frames_is_an_error_with_its_reason(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(RuntimeError) as caught:
        infer(tmp_path / "frames", weights, tmp_path / "out")
    assert str(caught.value.__cause__).startswith(
        "0 of 1 images could be read: per_image.csv says why, and of the first: a"
    )
    assert "a.jpg: not a readable image file" in (tmp_path / "out" / "per_image.csv").read_text()


@pytest.mark.slow
def test_a_folder_of_outputs_is_of_one_run_and_apart_from_its_images(
    frames: Path, weights: Path, tmp_path: Path
) -> None:
    infer(frames, weights, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    infer(frames, weights, tmp_path / "out")  # the same run again
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == before
    others = tmp_path / "others"
    others.mkdir()
    shutil.copy(frames / "frame.jpg", others / "another.jpg")
    with pytest.raises(RuntimeError) as caught:
        infer(others, weights, tmp_path / "out")
    assert "holds a run of other images: choose another" in str(sentence_of(caught.value))
    with pytest.raises(RuntimeError) as caught:
        infer(others, weights, others)
    assert "the images of this run lie here (another.jpg)" in str(sentence_of(caught.value))
    assert [path.name for path in others.iterdir()] == ["another.jpg"]
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == before


def test_a_training_killed_by_the_system_is_resumed_to_the_same_weights(tmp_path: Path) -> None:
    flags = [w for k, v in {**SMALL, "max_epochs": 3, "seed": 5}.items() for w in (f"--{k}", str(v))]

    def command(folder: Path, *more: str) -> list[str]:
        here = ["--ckpt_dir", str(folder), "--output_dir", str(folder)]
        return [
            sys.executable,
            "-m",
            "monai.bundle",
            "run",
            "--config_file",
            "configs/train.json",
            *flags,
            *here,
            *more,
        ]

    subprocess.run(command(tmp_path / "unbroken"), cwd=BUNDLE, check=True, capture_output=True, timeout=300)
    process = subprocess.Popen(
        command(tmp_path / "killed"), cwd=BUNDLE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    last = tmp_path / "killed" / "resume.ckpt"
    deadline = time.monotonic() + 240
    while not last.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert epochs_done(last.parent) < 3, "the training was over before it could be killed"

    done = subprocess.run(
        command(tmp_path / "killed", "--resume", "True"), cwd=BUNDLE, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    unbroken, resumed = (torch.load(tmp_path / n / "resume.ckpt", weights_only=True) for n in ("unbroken", "killed"))
    assert unbroken["best"] == resumed["best"]
    for name, weight in unbroken["network"].items():
        assert torch.equal(weight, resumed["network"][name]), name
