"""The factory of labelled slices from end to end, small: generator, interpreter, pairs and segmenter."""

import csv
import json
import re
import shlex
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from clinbundles.scripts import cli
from clinbundles.scripts.bundle import open_configs, run_configs
from clinbundles.scripts.label_slices import label
from clinbundles.scripts.score.triage import triage
from clinbundles.scripts.verbs import VERBS

BUNDLE = Path(__file__).parents[2] / "bundles" / "ct_datasetgan"
NAMES = ["background", "disc"]
SMALL: dict[str, Any] = {
    "image_size": 32,
    "class_names": NAMES,
    "z_dim": 8,
    "w_dim": 8,
    "channel_base": 128,
    "channel_max": 8,
}
SEGMENTER: dict[str, Any] = {"image_size": 32, "class_names": NAMES, "channels": [4, 4, 8, 8, 8, 4]}


def write_slices(folder: Path) -> None:
    generator = np.random.default_rng(0)
    content: dict[str, Any] = {"labels": {str(k): name for k, name in enumerate(NAMES)}, "labeller": "a test"}
    y, x = np.mgrid[:32, :32]
    for split, n in (("training", 12), ("validation", 3), ("test", 4)):
        content[split] = []
        for k in range(n):
            middle = generator.integers(10, 22, 2)
            disc = (y - middle[0]) ** 2 + (x - middle[1]) ** 2 < 50
            names = {}
            for kind, values in (("image", 40 + 150 * disc + generator.normal(0, 5, disc.shape)), ("label", disc)):
                (folder / f"{kind}s").mkdir(parents=True, exist_ok=True)
                names[kind] = f"{kind}s/{split}_{k}.png"
                Image.fromarray(values.astype(np.uint8)).save(folder / names[kind])
            content[split].append({**names, "group": f"{split}{k % 2}"})
    (folder / "datalist.json").write_text(json.dumps(content))


AFFINE = np.array([[0, 0, -2.0, 50], [0, 2.0, 0, -80], [4.0, 0, 0, -300], [0, 0, 0, 1]])


def write_volume(path: Path) -> None:
    """A CT of a cylinder of water in air, its axes towards head, anterior and left."""
    _, y, x = np.mgrid[:5, :40, :48]
    hu = np.where((y - 20) ** 2 + (x - 24) ** 2 < 150, 0, -1000)
    nibabel.save(nibabel.Nifti1Image(hu.astype(np.int16), AFFINE), path)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole way by the shipped configs; each test looks at a part of it."""
    work = tmp_path_factory.mktemp("factory")
    write_slices(work / "real")
    real = {"dataset_dir": str(work / "real"), "cache_rate": 0.0}
    gan = {**SMALL, **real, "batch_size": 4, "steps_per_epoch": 2, "grid_interval": 1, "group_size": 2}
    run_configs(BUNDLE, ["train_gan"], **gan, max_epochs=2, ckpt_dir=str(work / "generator"))
    weights = {"generator_weights": str(work / "generator" / "model.pt")}
    to_label = {"interpreter_weights": "$None", "count": 4, "shares": [1, 0, 0], "output_dir": str(work / "to_label")}
    run_configs(BUNDLE, ["generate"], **SMALL, **weights, **to_label)
    (work / "to_label" / "labels").mkdir()
    for path in sorted((work / "to_label" / "images").iterdir()):
        values = np.asarray(Image.open(path))
        Image.fromarray((values > np.median(values)).astype(np.uint8)).save(work / "to_label" / "labels" / path.name)
    label(str(work / "to_label"), class_names=",".join(NAMES))
    interpreter = {**SMALL, **weights, "dataset_dir": str(work / "to_label"), "batch_size": 128, "max_epochs": 2}
    run_configs(
        BUNDLE,
        ["train_interpreter"],
        **interpreter,
        n_classifiers=3,
        classifier_widths=[8],
        ckpt_dir=str(work / "interpreter"),
    )
    pairs = {
        "interpreter_weights": str(work / "interpreter" / "model.pt"),
        "n_classifiers": 3,
        "classifier_widths": [8],
    }
    run_configs(BUNDLE, ["generate"], **SMALL, **weights, **pairs, count=20, output_dir=str(work / "pairs"))
    synthetic = {
        **SEGMENTER,
        "dataset_dir": str(work / "pairs"),
        "cache_rate": 0.0,
        "batch_size": 4,
        "steps_per_epoch": 3,
    }
    run_configs(BUNDLE, ["train"], **synthetic, max_epochs=2, ckpt_dir=str(work / "segmenter"))
    trained = {"ckpt_path": str(work / "segmenter" / "model.pt")}
    run_configs(BUNDLE, ["evaluate"], **SEGMENTER, **real, **trained, output_dir=str(work / "evaluation"))
    few = {"n_labelled": 4, "seed": 5, "max_epochs": 2}
    projection = {"steps_per_epoch": 2, "ckpt_dir": str(work / "projected")}
    run_configs(BUNDLE, ["project"], **SMALL, **weights, **real, **few, **projection)
    pseudo = {**SEGMENTER, **real, **trained, "skip_labelled": 4, "seed": 5, "output_dir": str(work / "pseudo")}
    run_configs(BUNDLE, ["pseudo_label"], **pseudo)
    joined = {**real, "n_labelled": 4, "seed": 5, "added_dir": str(work / "pseudo"), "batch_size": 4}
    run_configs(
        BUNDLE, ["train"], **SEGMENTER, **joined, steps_per_epoch=2, max_epochs=1, ckpt_dir=str(work / "joined")
    )
    write_volume(work / "real" / "images" / "volume.nii.gz")
    images = {"dataset_dir": str(work / "real" / "images"), "output_dir": str(work / "inference")}
    run_configs(BUNDLE, ["inference"], **SEGMENTER, **trained, **images)
    return work


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_generator_has_weights_to_go_on_from_and_grids_to_look_at(work: Path) -> None:
    resume = torch.load(work / "generator" / "resume.ckpt", weights_only=True)
    assert {
        "network",
        "optimizer",
        "generator",
        "discriminator",
        "discriminator_optimizer",
        "controller",
    } <= resume.keys()
    assert "path_length" not in resume
    assert len(list((work / "generator" / "overlays").glob("kimg_*.png"))) == 2


def test_pairs_are_a_data_set_of_the_classes_with_a_split_and_an_uncertainty(work: Path) -> None:
    content = json.loads((work / "pairs" / "datalist.json").read_text())
    assert content["labels"] == {"0": "background", "1": "disc"}
    assert (len(content["training"]), len(content["validation"])) == (18, 2)
    for item in content["training"]:
        image, classes = (np.asarray(Image.open(work / "pairs" / item[key])) for key in ("image", "label"))
        assert image.shape == classes.shape == (32, 32)
        assert set(np.unique(classes)) <= {0, 1}
        assert item["uncertainty"] >= 0
    assert np.load(work / "pairs" / "latents.npy").shape == (20, 8, 8)
    assert "window_hu" not in content  # discs are no CT


@pytest.mark.parametrize(
    ("options", "window"),
    [
        ({}, [-1000, 600]),
        ({"window_hu": [-160, 240], "class_names": ["background", "heart", "left lung"]}, [-160, 240]),
        ({"window_hu": None}, None),
        ({"interpreter_weights": None}, None),
        ({"class_names": ["background", "nucleus"]}, None),
    ],
)
def test_pairs_of_chest_ct_carry_their_window_and_no_others(options: dict[str, Any], window: list[int] | None) -> None:
    config = open_configs(BUNDLE, ["generate"], **options)
    assert config.get_parsed_content("facts") == {"window_hu": window}


def test_the_pairs_are_sorted_by_the_label_maps_of_the_segmenter(work: Path) -> None:
    images = {"dataset_dir": str(work / "pairs" / "images"), "output_dir": str(work / "judge")}
    run_configs(BUNDLE, ["inference"], **SEGMENTER, ckpt_path=str(work / "segmenter" / "model.pt"), **images)
    triage(generated=str(work / "pairs"), judge=str(work / "judge"), output_dir=str(work / "triage"))
    content = json.loads((work / "triage" / "triage.json").read_text())
    assert sum(each["count"] for each in content["verdicts"].values()) == content["pairs"]["judged"] == 20


def test_the_segmenter_is_scored_on_real_slices_by_pooled_pixels(work: Path) -> None:
    table = rows(work / "evaluation" / "per_image.csv")
    assert len(table) == 4
    assert {row["patient"] for row in table} == {"0", "1"}
    for row in table:
        assert int(row["either_0"]) + int(row["either_1"]) - int(row["both_0"]) - int(row["both_1"]) in range(2049)
        assert int(row["both_0"]) <= int(row["either_0"])


def test_inference_writes_a_label_map_in_the_geometry_of_each_slice_and_volume(work: Path) -> None:
    table = rows(work / "inference" / "per_image.csv")
    assert len(table) == len(list((work / "inference" / "label_maps").iterdir())) == 20
    assert "both_0" not in table[0]
    volume = nibabel.load(work / "inference" / "label_maps" / "volume.nii.gz")
    assert volume.shape == (5, 40, 48)
    assert np.allclose(volume.affine, AFFINE)
    assert set(np.unique(volume.dataobj)) <= {0, 1}
    (row,) = (row for row in table if row["image"] == "volume.nii.gz")
    assert [row[name] for name in ("slices", "height", "width")] == ["5", "40", "48"]


def test_projected_slices_keep_their_label_maps_and_train_an_interpreter(work: Path) -> None:
    content = json.loads((work / "projected" / "datalist.json").read_text())
    real = {
        Path(item["image"]).name: item for item in json.loads((work / "real/datalist.json").read_text())["training"]
    }
    assert len(content["training"]) == 4
    assert content["labeller"] == "a test"
    for item in content["training"]:
        own = np.asarray(Image.open(work / "projected" / item["label"]))
        assert np.array_equal(own, np.asarray(Image.open(work / "real" / real[item["real"]]["label"])))
        assert item["error"] < 0.5
    options = {**SMALL, "generator_weights": str(work / "generator" / "model.pt"), "batch_size": 128, "max_epochs": 1}
    small = {"n_classifiers": 2, "classifier_widths": [8], "ckpt_dir": str(work / "of_people")}
    run_configs(BUNDLE, ["train_interpreter"], **options, **small, dataset_dir=str(work / "projected"))
    assert (work / "of_people" / "model.pt").is_file()


def test_pseudo_labels_are_of_the_slices_that_were_not_drawn(work: Path) -> None:
    labelled = {item["real"] for item in json.loads((work / "projected/datalist.json").read_text())["training"]}
    pseudo = json.loads((work / "pseudo" / "datalist.json").read_text())
    others = {Path(item["image"]).name for item in pseudo["training"]}
    everything = {
        Path(item["image"]).name for item in json.loads((work / "real/datalist.json").read_text())["training"]
    }
    assert labelled | others == everything
    assert not labelled & others
    assert pseudo["labeller"] == "network"
    assert (work / "joined" / "model.pt").is_file()


def test_generating_again_does_nothing_and_more_goes_on(work: Path, capsys: pytest.CaptureFixture) -> None:
    options = {
        **SMALL,
        "generator_weights": str(work / "generator" / "model.pt"),
        "interpreter_weights": str(work / "interpreter" / "model.pt"),
        "n_classifiers": 3,
        "classifier_widths": [8],
        "output_dir": str(work / "pairs"),
    }
    before = (work / "pairs" / "images" / "000003.png").stat().st_mtime_ns
    run_configs(BUNDLE, ["generate"], **options, count=20)
    run_configs(BUNDLE, ["generate"], **options, count=24)
    said = capsys.readouterr().out
    assert "20 images were asked for, 20 are in datalist.json" in said
    assert "24 images were asked for, 24 are in datalist.json" in said
    assert (work / "pairs" / "images" / "000003.png").stat().st_mtime_ns == before


def test_the_constants_of_the_presets_are_those_of_the_method() -> None:
    gan = open_configs(BUNDLE, ["train_gan"])
    assert (gan["augment_target"], gan["r1_interval"], gan["style_mixing"], gan["ema_ramp"]) == (0.6, 16, 0.9, 0.05)
    assert gan.get_parsed_content("ada_kimg") == pytest.approx(
        gan.get_parsed_content("steps_per_epoch") * 32 * 50 / 3000
    )
    assert gan.get_parsed_content("image_augmentation").transforms.isdisjoint({"luma_flip"})
    generator = gan.get_parsed_content("network_def")
    assert generator.feature_channels == [64, 64, 64, 64, 64, 64, 32, 32, 16, 16]
    interpreter = open_configs(BUNDLE, ["train_interpreter"]).get_parsed_content("network_def")
    assert (interpreter.classifier.n_classifiers, interpreter.classifier.weights[0].shape[1:]) == (10, (128, 480))
    assert open_configs(BUNDLE, ["generate"])["truncation"] == 0.7
    segmenter = open_configs(BUNDLE, ["train"]).get_parsed_content("network_def")
    assert sum(p.numel() for p in segmenter.parameters()) < 1_000_000


def test_a_projection_takes_three_hundred_steps() -> None:
    project = open_configs(BUNDLE, ["project"])
    names = ("n_labelled", "learning_rate", "latent_weight", "batch_size", "steps_per_epoch", "max_epochs")
    assert [project[name] for name in names] == [None, 0.1, 0.001, 32, 30, 10]
    assert project.get_parsed_content("loss").sizes == (1, 2, 4)
    pseudo = open_configs(BUNDLE, ["pseudo_label"])
    assert (pseudo["split"], pseudo["skip_labelled"]) == ("training", 0)
    assert pseudo["validate"]["dataset"]["data"]["rest"] is True


def test_the_papers_preset_has_the_papers_features_and_rates() -> None:
    paper = open_configs(BUNDLE, ["train_gan", "paper"])
    with torch.device("meta"):
        generator = paper.get_parsed_content("network_def")
    assert sum(generator.feature_channels) == 4992
    assert generator.n_ws == 14
    names = ("r1_gamma", "path_length_weight", "batch_size", "ada_kimg", "learning_rate", "ema_kimg", "mapping_layers")
    assert [paper[name] for name in names] == [1.0, 2.0, 16, 500, 0.0025, 5.0, 2]
    assert paper["batch_size"] * paper["steps_per_epoch"] * paper["max_epochs"] == 10_000_000
    assert paper.get_parsed_content("image_augmentation").transforms >= {"luma_flip", "rotation", "brightness"}


def test_the_papers_widths_take_a_step_with_path_length_and_gradient_penalty(work: Path, tmp_path: Path) -> None:
    small = {"image_size": 32, "batch_size": 2, "steps_per_epoch": 1, "max_epochs": 1, "group_size": 2}
    real = {"dataset_dir": str(work / "real"), "class_names": NAMES, "cache_rate": 0.0}
    run_configs(BUNDLE, ["train_gan", "paper"], **small, **real, ckpt_dir=str(tmp_path / "paper"))
    weights = torch.load(tmp_path / "paper" / "model.pt", weights_only=True)
    assert max(value.shape[0] for name, value in weights.items() if name.endswith("weight")) == 512
    assert "path_length" in torch.load(tmp_path / "paper" / "resume.ckpt", weights_only=True)


def test_the_preset_for_a_gpu_makes_slices_of_256_px_in_bfloat16() -> None:
    gpu = open_configs(BUNDLE, ["train_gan", "gpu"])
    assert (gpu["image_size"], gpu["precision"], gpu["batch_size"], gpu["r1_gamma"]) == (256, "bfloat16", 64, 0.2)
    assert max(gpu.get_parsed_content("network_def").feature_channels) == 256


def test_the_commands_of_the_page_name_options_that_there_are() -> None:
    page = (BUNDLE / "docs" / "README.md").read_text()
    commands = [line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert len(commands) > 8
    for command in commands:
        words = shlex.split(command)
        if words[0] != "clinbundles":
            continue
        verb = cli.find_verb(words[1:])
        cli.values_of(VERBS[verb], words[1 + len(verb.split()) :])


def test_a_segmenter_of_other_classes_than_its_data_is_refused(work: Path) -> None:
    options = {"dataset_dir": str(work / "pairs"), "image_size": 32, "ckpt_dir": str(work / "none")}
    for config in ("train", "evaluate"):
        with pytest.raises(RuntimeError) as caught:
            run_configs(BUNDLE, [config], **options)
        assert "its classes are background, disc, those of the network background, body" in str(caught.value.__cause__)
    assert not (work / "none").exists()


def test_parts_of_the_test_split_choose_the_epoch_as_in_the_published_code(work: Path, tmp_path: Path) -> None:
    config = open_configs(BUNDLE, ["checkpoint_cv"])
    assert (config["folds"], config["split"]) == (5, "test")
    assert config["validate"]["dataset"]["data"]["split"] == "@split"
    options = {**SEGMENTER, "dataset_dir": str(work / "real"), "cache_rate": 0.0, "batch_size": 4, "steps_per_epoch": 2}
    run_configs(BUNDLE, ["checkpoint_cv"], **options, max_epochs=2, folds=2, ckpt_dir=str(tmp_path / "cv"))
    written = json.loads((tmp_path / "cv" / "checkpoint_cv.json").read_text())
    assert [fold["images"] for fold in written["folds"]] == [2, 2]
    assert {fold["epoch"] for fold in written["folds"]} <= {1, 2}


@pytest.mark.parametrize(("name", "millions", "stride"), [("deeplabv3", 26.0, 8), ("fcn", 32.9, 8)])
def test_the_larger_segmenters_train_and_are_evaluated(
    work: Path, tmp_path: Path, name: str, millions: float, stride: int
) -> None:
    network = open_configs(BUNDLE, ["train", name]).get_parsed_content("network_def").eval()
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    sizes: list[int] = []
    encoder = network.encoder if name == "deeplabv3" else network.backbone

    def keep(_: Any, __: Any, out: Any) -> None:
        sizes.append((out[-1] if name == "deeplabv3" else out["out"]).shape[-1])

    encoder.register_forward_hook(keep)
    with torch.no_grad():
        result = network(torch.rand(1, 1 if name == "deeplabv3" else 3, 64, 64))
    assert (result if name == "deeplabv3" else result["out"]).shape == (1, 4, 64, 64)
    assert sizes == [64 // stride]
    options = {"image_size": 32, "class_names": NAMES, "dataset_dir": str(work / "real"), "cache_rate": 0.0}
    short = {"batch_size": 2, "steps_per_epoch": 1, "max_epochs": 1}
    run_configs(BUNDLE, ["train", name], **options, **short, ckpt_dir=str(tmp_path / name))
    ckpt_path = str(tmp_path / name / "model.pt")
    run_configs(BUNDLE, ["evaluate", name], **options, ckpt_path=ckpt_path, output_dir=str(tmp_path / "test"))
    assert len(rows(tmp_path / "test" / "per_image.csv")) == 4
