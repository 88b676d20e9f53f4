"""The X-ray bundle from its shipped configs: pretrained, transferred, evaluated and used on a folder with bad files."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

from clinbundles.scripts.bundle import config_files, run_configs

BUNDLE = Path(__file__).parents[2] / "bundles" / "covid_xray_transfer"
CLASSES = ["normal", "bacterial", "covid19"]
SIZE: dict[str, Any] = {"image_size": 32, "channels": [4, 4], "dense_units": 8}
SMALL: dict[str, Any] = {**SIZE, "cache_rate": 0.0, "max_epochs": 2, "batch_size": 8}


def run(*names: str, out: Path, **knobs: Any) -> None:
    run_configs(BUNDLE, names, output_dir=str(out), ckpt_dir=str(out), **{**SMALL, **knobs})


def classify(images: Path, out: Path, model: Path, **knobs: Any) -> list[dict[str, str]]:
    """Run inference; rows of its table."""
    paths = {"dataset_dir": str(images), "output_dir": str(out), "ckpt_path": str(model)}
    run_configs(BUNDLE, ["inference"], **paths, **{**SIZE, **knobs})
    return rows(out / "per_image.csv")


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


def last_words(*names: str, out: Path, **knobs: Any) -> str:
    """What a run that must fail says in the end."""
    with pytest.raises(RuntimeError) as caught:
        run(*names, out=out, **knobs)
    error: BaseException | None = caught.value
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    return str(error)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model_0 and, from it, Model_2 after an epoch of each phase: model_0/model.pt and model_2/model.pt."""
    folder = tmp_path_factory.mktemp("trained")
    run("train_pretrain", out=folder / "model_0")
    start = str(folder / "model_0" / "model.pt")
    phases = [
        {"name": "head", "layers": ["head"], "learning_rate": 0.001, "max_epochs": 1},
        {"name": "all layers", "layers": "all", "learning_rate": 0.0001, "max_epochs": 1},
    ]
    run("train_transfer", out=folder / "model_2", initial_weights=start, phases=phases)
    return folder


@pytest.fixture(scope="module")
def model(trained: Path) -> Path:
    return trained / "model_2" / "model.pt"


def test_the_head_is_new_and_the_other_layers_start_from_the_pretraining(trained: Path, tmp_path: Path) -> None:
    start = weights(trained / "model_0" / "model.pt")
    run(
        "train_transfer",
        out=tmp_path,
        initial_weights=str(trained / "model_0" / "model.pt"),
        max_epochs=1,
    )
    after = weights(tmp_path / "resume.ckpt")["network"]
    for name, value in start.items():
        assert torch.equal(after[name], value) != name.startswith("head."), name


def test_the_second_phase_moves_all_layers(trained: Path) -> None:
    start, last = weights(trained / "model_0" / "model.pt"), weights(trained / "model_2" / "resume.ckpt")
    assert last["progress"]["epoch"] == 2
    assert last["lr_scheduler"]["index"] == 1
    assert all(not torch.equal(last["network"][name], value) for name, value in start.items())


def test_the_seed_decides_the_start_and_the_end(tmp_path: Path) -> None:
    def first_filter(seed: int, folder: str) -> torch.Tensor:
        torch.manual_seed(len(folder))  # what was drawn before the run does not matter
        run("train", out=tmp_path / folder, seed=seed, max_epochs=1)
        return weights(tmp_path / folder / "model.pt")["features.0.weight"]

    first, again, other = first_filter(5, "a"), first_filter(5, "again"), first_filter(6, "other")
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_killed_transfer_goes_on_where_it_was(trained: Path, tmp_path: Path) -> None:
    knobs: dict[str, Any] = {
        "initial_weights": str(trained / "model_0" / "model.pt"),
        "phases": [
            {"layers": ["head"], "learning_rate": 0.001, "max_epochs": 1},
            {"layers": "all", "learning_rate": 0.0001},
        ],
    }
    run("train_transfer", out=tmp_path / "killed", **knobs, max_epochs=2)
    run("train_transfer", out=tmp_path / "killed", **knobs, max_epochs=3, resume=True)
    run("train_transfer", out=tmp_path / "whole", **knobs, max_epochs=3)
    resumed, whole = (weights(tmp_path / name / "resume.ckpt")["network"] for name in ("killed", "whole"))
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value)


def test_evaluation_scores_calibrates_and_times(trained: Path, tmp_path: Path) -> None:
    run(
        "train_transfer",
        "evaluate",
        out=tmp_path,
        ckpt_path=str(trained / "model_2" / "model.pt"),
        n_timed_files=2,
    )
    table = rows(tmp_path / "per_image.csv")
    items = json.loads((BUNDLE / "samples" / "datalist.json").read_text())["test"]
    assert [row["image"] for row in table] == [Path(item["image"]).name for item in items]
    assert [row["label"] for row in table] == [CLASSES[item["label"]] for item in items]
    for row in table:
        probabilities = [float(row[f"probability_{name}"]) for name in CLASSES]
        assert sum(probabilities) == pytest.approx(1)
        assert row["prediction"] == CLASSES[int(np.argmax(probabilities))]
        assert row["correct"] == str(int(row["prediction"] == row["label"]))
        assert row["patient"].isdigit()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    text = json.dumps(metrics)
    assert all(name in text for name in ("accuracy", "macro_precision", "macro_recall", "macro_f1", "temperature"))
    for name in ("confusion.png", "reliability.png"):
        with Image.open(tmp_path / name) as image:
            image.verify()
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.suffix in (".csv", ".json"))
    assert not [item["group"] for item in items if item["group"] in written]


def test_another_section_can_be_evaluated(trained: Path, tmp_path: Path) -> None:
    knobs = {"split": "same_source", "n_timed_files": 1}
    content = json.loads((BUNDLE / "samples" / "datalist.json").read_text())
    if "same_source" not in content:
        knobs["split"] = "training"
    run("evaluate", out=tmp_path, ckpt_path=str(trained / "model_2" / "model.pt"), **knobs)
    assert len(rows(tmp_path / "per_image.csv")) == len(content[knobs["split"]])


def test_a_list_of_test_images_alone_is_scored_without_a_temperature(trained: Path, tmp_path: Path) -> None:
    content = json.loads((BUNDLE / "samples" / "datalist.json").read_text())
    datalist = tmp_path / "test.json"
    datalist.write_text(json.dumps({**content, "training": [], "validation": []}))
    weights = str(trained / "model_2" / "model.pt")
    run("evaluate", out=tmp_path / "out", ckpt_path=weights, datalist=str(datalist), n_timed_files=1)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["images"] == len(content["test"])
    assert metrics["calibration"]["temperature"] is None


def test_a_folder_of_jpeg_and_dicom_becomes_a_table(model: Path, tmp_path: Path) -> None:
    images = BUNDLE / "samples" / "images"
    table = classify(images, tmp_path, model)
    assert [row["image"] for row in table] == sorted(path.name for path in images.iterdir())
    assert {Path(row["image"]).suffix for row in table} >= {".dcm", ".jpeg"}
    for row in table:
        assert row["failure"] == ""
        assert sum(float(row[f"probability_{name}"]) for name in CLASSES) == pytest.approx(1)
    columns = ["image", "prediction", *[f"probability_{name}" for name in CLASSES], "failure", "warning", "weights"]
    assert list(table[0]) == columns
    predictions = json.loads((tmp_path / "predictions.json").read_text())
    assert [entry["prediction"] for entry in predictions] == [row["prediction"] for row in table]


def test_a_higher_temperature_makes_the_same_predictions_less_sure(model: Path, tmp_path: Path) -> None:
    def highest(row: dict[str, str]) -> float:
        return max(float(row[f"probability_{name}"]) for name in CLASSES)

    sure = classify(BUNDLE / "samples" / "images", tmp_path / "1", model)
    unsure = classify(BUNDLE / "samples" / "images", tmp_path / "9", model, temperature=9.0)
    assert [row["prediction"] for row in sure] == [row["prediction"] for row in unsure]
    assert all(highest(a) > highest(b) > 1 / 3 for a, b in zip(sure, unsure, strict=True))


def test_the_shipped_weights_are_not_run_with_another_temperature_than_was_fitted_to_them(tmp_path: Path) -> None:
    weights = BUNDLE / "models" / "model.pt"
    with pytest.raises(RuntimeError) as caught:
        run_configs(BUNDLE, ["inference"], output_dir=str(tmp_path / "out"), ckpt_path=str(weights), temperature=2.0)
    assert "temperature 1.5465 was fitted to these weights, and this run has 2.0" in str(caught.value.__cause__)
    assert not (tmp_path / "out").exists()


def write_lateral(good: Path, path: Path) -> None:
    dataset = pydicom.dcmread(good)
    dataset.ViewPosition = "LL"
    dataset.PatientName = "Doe^Jane"
    dataset.save_as(path)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_batch_goes_on_past_bad_files_and_lists_them(model: Path, tmp_path: Path, batch_size: int) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    shutil.copytree(BUNDLE / "samples" / "images", images)
    good = sorted(path.name for path in images.iterdir())
    dicom = next(images.glob("*.dcm"))
    jpeg = next(images.glob("*.jpeg"))
    write_lateral(dicom, images / "lateral.dcm")
    (images / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (images / "truncated.jpg").write_bytes(jpeg.read_bytes()[:2000])
    (images / "no_dicom.dcm").write_bytes(b"nothing")
    Image.new("L", (64, 64), 7).save(images / "constant.png")
    Image.new("L", (1, 1)).save(images / "dot.png")
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3), dtype=np.uint8)).save(images / "photo.png")
    with Image.open(jpeg) as image:
        deep = np.asarray(image.convert("L")).astype(np.uint16) * 257
        Image.fromarray(deep).save(images / "deep.png")
        image.convert("CMYK").save(images / "printed.jpg")
    table = {row["image"]: row for row in classify(images, out, model, batch_size=batch_size)}
    assert [name for name, row in table.items() if not row["failure"]] == sorted([*good, "deep.png", "printed.jpg"])
    reasons = {
        "lateral.dcm": "ViewPosition is 'LL', not frontal",
        "corrupt.png": "not a readable image file",
        "truncated.jpg": "not a readable image file",
        "no_dicom.dcm": "not a readable",
        "constant.png": "every pixel has the same value",
        "dot.png": "an image of 1x1 px",
        "photo.png": "a colour image, no X-ray",
    }
    failed = {name: row for name, row in table.items() if row["failure"]}
    assert failed.keys() == reasons.keys()
    for name, row in failed.items():
        assert row["failure"].startswith(f"{name}: ")
        assert reasons[name] in row["failure"]
        assert not any(row[column] for column in row if column.startswith(("pred", "prob")))
    text = "".join(path.read_text() for path in out.rglob("*") if path.suffix in (".csv", ".json"))
    assert "Doe" not in text
    assert str(tmp_path) not in text
    alone = {row["image"]: row for row in classify(BUNDLE / "samples" / "images", tmp_path / "alone", model)}
    for name, row in alone.items():
        for column in row:
            if column.startswith("probability"):
                assert float(row[column]) == pytest.approx(float(table[name][column]), abs=1e-6)


def test_force_reads_a_lateral_view_all_the_same(model: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    write_lateral(next((BUNDLE / "samples" / "images").glob("*.dcm")), tmp_path / "images" / "lateral.dcm")
    with pytest.raises(RuntimeError) as caught:
        classify(tmp_path / "images", tmp_path / "no", model)
    assert str(caught.value.__cause__).startswith(
        "0 of 1 images could be read: per_image.csv says why, and of the first"
    )
    assert rows(tmp_path / "no" / "per_image.csv")[0]["failure"]
    assert not classify(tmp_path / "images", tmp_path / "yes", model, force=True)[0]["failure"]


def test_overlays_show_where_the_network_looked(model: Path, tmp_path: Path) -> None:
    images = BUNDLE / "samples" / "images"
    classify(images, tmp_path, model, overlays=True)
    written = {path.stem for path in tmp_path.rglob("*") if path.suffix in (".png", ".jpg")}
    assert all(any(path.stem in name for name in written) for path in images.iterdir())


def test_a_network_of_torchvision_takes_the_same_recipe(tmp_path: Path) -> None:
    knobs: dict[str, Any] = {
        "network_name": "mobilenet_v3_small",
        "initial_weights": None,
        "leave_out": [],
        "phases": [{"layers": ["classifier.3"], "learning_rate": 0.001}],
        "max_epochs": 1,
    }
    run("train_resnet50", out=tmp_path, **knobs)
    trained = weights(tmp_path / "model.pt")
    assert trained["classifier.3.weight"].shape[0] == 3
    assert all(int(v) == 0 for name, v in trained.items() if name.endswith("num_batches_tracked"))
    table = classify(
        BUNDLE / "samples" / "images", tmp_path / "out", tmp_path / "model.pt", network_name="mobilenet_v3_small"
    )
    assert not any(row["failure"] for row in table)


def test_what_does_not_fit_is_said_in_one_sentence(trained: Path, tmp_path: Path) -> None:
    words = last_words("train_transfer", out=tmp_path, initial_weights=str(tmp_path / "none.pt"))
    assert words == f"{tmp_path / 'none.pt'}: no such file; initial weights were expected there."
    start = str(trained / "model_0" / "model.pt")
    words = last_words("train_transfer", out=tmp_path, initial_weights=start, dense_units=9)
    assert "weights do not fit the network, the first is dense.linear.bias (8, expected 9)" in words
    words = last_words("train", out=tmp_path, phases=[{"layers": ["fc"], "learning_rate": 1}])
    assert words == "phase 1: the network has no layer 'fc'; its layers are features, dense, head."
    assert "expected PneumoniaCNN, a classifier of" in last_words("train", out=tmp_path, network_name="resnot")
    assert not (tmp_path / "model.pt").exists()


def command(*arguments: str, cwd: Path, launcher: list[str] | None = None) -> str:
    """Output of MONAI's own command line, as in the bundle's README."""
    done = subprocess.run(
        [sys.executable, "-m", *(launcher or []), "monai.bundle", "run", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_classes_in_another_order_than_the_datalists_stop_a_training_and_an_evaluation(tmp_path: Path) -> None:
    content = json.loads((BUNDLE / "samples" / "datalist.json").read_text())
    content["labels"] = {"0": "bacterial", "1": "covid19", "2": "normal"}
    (tmp_path / "other.json").write_text(json.dumps(content))
    both = "its classes are bacterial, covid19, normal, those of the network normal, bacterial, covid19"
    for name in ("train", "evaluate"):
        said = last_words(name, out=tmp_path / name, datalist=str(tmp_path / "other.json"))
        assert f"other.json: {both}" in said
        assert not (tmp_path / name / "per_image.csv").exists()


def test_the_command_line_trains_and_classifies(tmp_path: Path) -> None:
    size = [f"--{name}={value}" for name, value in SIZE.items()]
    knobs = [*size, "--cache_rate=0", "--max_epochs=1", f"--ckpt_dir={tmp_path}", f"--output_dir={tmp_path}"]
    command("--config_file", "configs/train.json", *knobs, cwd=BUNDLE)
    # From another folder too: only bundle_root says where the bundle is.
    said = command(
        f"--config_file={BUNDLE / 'configs' / 'inference.json'}",
        f"--bundle_root={BUNDLE}",
        f"--ckpt_path={tmp_path / 'model.pt'}",
        f"--output_dir={tmp_path / 'out'}",
        *size,
        cwd=tmp_path,
    )
    count = len(list((BUNDLE / "samples" / "images").iterdir()))
    assert f"{count} in, {count} used, 0 left out." in said
    assert len(rows(tmp_path / "out" / "per_image.csv")) == count


def test_two_processes_train_in_two_phases(trained: Path, tmp_path: Path) -> None:
    names = ("train_transfer", "multi_gpu_train")
    phases = [{"layers": ["head"], "learning_rate": 0.001, "max_epochs": 1}, {"layers": "all", "learning_rate": 0.001}]
    command(
        "--config_file",
        str([str(file) for file in config_files(BUNDLE, names)]),
        *[f"--{name}={value}" for name, value in SMALL.items()],
        f"--initial_weights={trained / 'model_0' / 'model.pt'}",
        f"--phases={phases}",
        f"--ckpt_dir={tmp_path}",
        f"--output_dir={tmp_path}",
        cwd=BUNDLE,
        launcher=["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"],
    )
    last = weights(tmp_path / "resume.ckpt")
    assert last["lr_scheduler"]["index"] == 1
    assert set(weights(tmp_path / "model.pt")) == set(weights(trained / "model_0" / "model.pt"))


def test_the_samples_are_small_open_and_carry_no_patient(tmp_path: Path) -> None:
    samples = BUNDLE / "samples"
    assert sum(path.stat().st_size for path in samples.rglob("*") if path.is_file()) < 2e6
    with (samples / "covid-chestxray-dataset" / "metadata.csv").open(newline="") as stream:
        licences = {row["license"] for row in csv.DictReader(stream)}
    assert licences
    assert all(licence.startswith("CC BY ") for licence in licences)
    for path in samples.rglob("*"):
        if path.suffix == ".dcm":
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            assert not dataset.get("PatientBirthDate")
            assert not dataset.get("InstitutionName")
            assert str(dataset.get("PatientName", "")).strip("^") in ("", "Anonymous")
        elif path.suffix in (".jpeg", ".jpg", ".png"):
            with Image.open(path) as image:
                assert not image.getexif()
