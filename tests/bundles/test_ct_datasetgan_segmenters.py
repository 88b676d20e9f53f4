"""The segmenters of the factory of slices: cross-validated by epochs and by patients, and with other networks."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from PIL import Image

from clinbundles.engines.sentences import sentence_of
from clinbundles.scripts.bundle import open_configs, run_configs
from clinbundles.scripts.prepare.folds import write_folds

BUNDLE = Path(__file__).parents[2] / "bundles" / "ct_datasetgan"
NAMES = ["background", "disc"]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Discs in noise, of six patients, and what makes a training of them short."""
    folder, generator = tmp_path_factory.mktemp("discs"), np.random.default_rng(0)
    content: dict[str, Any] = {"labels": {str(k): name for k, name in enumerate(NAMES)}}
    y, x = np.mgrid[:32, :32]
    for kind in ("image", "label"):
        (folder / f"{kind}s").mkdir()
    for split, patients in (("training", "abc"), ("validation", "d"), ("test", "ef")):
        content[split] = []
        for patient in patients:
            for k in range(4):
                middle = generator.integers(10, 22, 2)
                disc = (y - middle[0]) ** 2 + (x - middle[1]) ** 2 < 50
                names = {kind: f"{kind}s/{patient}{k}.png" for kind in ("image", "label")}
                pixels = 40 + 150 * disc + generator.normal(0, 5, disc.shape)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / names["image"])
                Image.fromarray(disc.astype(np.uint8)).save(folder / names["label"])
                content[split].append({**names, "group": patient})
    (folder / "datalist.json").write_text(json.dumps(content))
    small = {"image_size": 32, "class_names": NAMES, "channels": [4, 4, 8, 8, 8, 4], "batch_size": 4}
    return {**small, "dataset_dir": str(folder), "cache_rate": 0.0, "steps_per_epoch": 3, "max_epochs": 2}


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "per_image.csv").read_text().splitlines()))


def test_one_training_is_cross_validated_by_its_epochs_and_goes_on_where_it_stopped(
    options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run_configs(BUNDLE, ["checkpoint_cv"], **options, ckpt_dir=str(whole))
    said = capsys.readouterr().out.splitlines()
    assert len([line for line in said if line.startswith("checkpoint_cv: mIoU")]) == 1
    run_configs(BUNDLE, ["checkpoint_cv"], **options | {"max_epochs": 1}, ckpt_dir=str(broken))
    run_configs(BUNDLE, ["checkpoint_cv"], **options, ckpt_dir=str(broken), resume=True)
    content = json.loads((whole / "checkpoint_cv.json").read_text())
    assert (content["images"], content["epochs"], len(content["folds"])) == (8, [1, 2], 5)
    assert content == json.loads((broken / "checkpoint_cv.json").read_text())
    last = torch.load(whole / "resume.ckpt", weights_only=True)["network"]
    model = torch.load(whole / "model.pt", weights_only=True)
    assert all(torch.equal(last[name], value) for name, value in model.items())


def test_test_images_choose_epochs_in_checkpoint_cv_and_say_so() -> None:
    config = open_configs(BUNDLE, ["checkpoint_cv"], validation_split="elsewhere")
    assert [config[name] for name in ("split", "folds", "fold_by", "val_interval")] == ["test", 5, "order", 1]
    assert {len(config.get_parsed_content("validate#dataset").data), 5} == {5}
    assert "selects epochs on test images" in config["_desc_"]
    for name in ("train", "deeplabv3", "fcn"):
        assert open_configs(BUNDLE, [name])["validation_split"] == "validation"


def test_folds_by_patient_are_datalists_that_train_and_evaluate_take(options: dict[str, Any], tmp_path: Path) -> None:
    write_folds(str(Path(options["dataset_dir"]) / "datalist.json"), str(tmp_path / "folds"), folds=3)
    fold = {**options, "datalist": str(tmp_path / "folds" / "fold_1.json"), "max_epochs": 1}
    run_configs(BUNDLE, ["train"], **fold, ckpt_dir=str(tmp_path / "train"))
    weights = {"ckpt_path": str(tmp_path / "train" / "model.pt"), "output_dir": str(tmp_path / "evaluation")}
    run_configs(BUNDLE, ["evaluate"], **fold, **weights)
    expected = json.loads((tmp_path / "folds" / "fold_1.json").read_text())["test"]
    assert {row["image"] for row in rows(tmp_path / "evaluation")} == {Path(item["image"]).name for item in expected}
    assert len(expected) == 8


def test_checkpoint_cv_takes_the_other_networks() -> None:
    config = open_configs(BUNDLE, ["deeplabv3", "checkpoint_cv"])
    assert isinstance(config.get_parsed_content("network_def"), smp.DeepLabV3)
    assert config.get_parsed_content("ckpt_dir").endswith("/checkpoint_cv")
    assert "evaluate,deeplabv3 " in config.get_parsed_content("next_command")


@pytest.mark.parametrize("name", ["deeplabv3", "fcn"])
def test_the_other_networks_segment_slices_by_what_they_have_learned(
    options: dict[str, Any], tmp_path: Path, name: str
) -> None:
    short = options | {"steps_per_epoch": 1, "max_epochs": 1}
    run_configs(BUNDLE, ["train", name], **short, ckpt_dir=str(tmp_path / "train"))
    known = {key: options[key] for key in ("class_names", "image_size")}
    known |= {"dataset_dir": str(Path(options["dataset_dir"]) / "images"), "output_dir": str(tmp_path / "inference")}
    run_configs(BUNDLE, [f"inference_{name}"], **known, ckpt_path=str(tmp_path / "train" / "model.pt"))
    assert len(rows(tmp_path / "inference")) == len(list((tmp_path / "inference" / "label_maps").iterdir())) == 24
    trained, applied = (open_configs(BUNDLE, [config]) for config in (name, f"inference_{name}"))
    assert trained["network_def"] == applied["network_def"]
    assert trained["image_transforms"] == applied["image_transforms"]


def test_a_batch_of_one_is_refused_by_deeplabv3_in_a_sentence(options: dict[str, Any], tmp_path: Path) -> None:
    one = options | {"batch_size": 1, "steps_per_epoch": 1, "max_epochs": 1}
    run_configs(BUNDLE, ["fcn"], **one, ckpt_dir=str(tmp_path / "fcn"))
    assert (tmp_path / "fcn" / "model.pt").is_file()
    with pytest.raises((RuntimeError, ValueError)) as caught:
        run_configs(BUNDLE, ["deeplabv3"], **one, ckpt_dir=str(tmp_path / "deeplabv3"))
    sentence = sentence_of(caught.value)
    assert sentence is not None
    assert "Expected more than 1 value per channel when training" in sentence
    assert not list((tmp_path / "deeplabv3").glob("*.pt"))
