"""What the factory of labelled slices refuses: by the shipped commands, in one sentence, before anything is written."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from clinbundles.nets.datasetgan.generator import Generator
from clinbundles.nets.datasetgan.labelled_generator import StyleInterpreter
from clinbundles.nets.datasetgan.pixel_classifier import PixelClassifierEnsemble
from clinbundles.scripts.bundle import open_configs
from clinbundles.scripts.cli import main

SHAPE = {"image_size": "32", "class_names": "background,disc"}
WIDTHS = {"z_dim": "8", "w_dim": "8", "channel_base": "128", "channel_max": "8"}
SEGMENTER = {**SHAPE, "channels": "4,4,8,8,8,4"}
CLASSIFIER = {"n_classifiers": "2", "classifier_widths": "$[8]"}
SHORT = {"cache_rate": "0", "batch_size": "4", "steps_per_epoch": "2", "max_epochs": "1"}


def run(configs: str, **options: Any) -> None:
    main(["run", "ct_datasetgan", configs, *(f"--{name}={value}" for name, value in options.items())])


def refusal(configs: str, **options: Any) -> str:
    """The sentence that a command ends with."""
    with pytest.raises(SystemExit) as caught:
        run(configs, **options)
    sentence = str(caught.value.code)
    assert sentence.startswith("clinbundles run: ")
    assert "\n" not in sentence
    return sentence


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight slices of a disc to learn from, two to validate on and two to test on."""
    generator = np.random.default_rng(0)
    folder, y_x = tmp_path / "data", np.mgrid[:32, :32]
    lists: dict[str, Any] = {"labels": {"0": "background", "1": "disc"}, "name": "discs"}
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for split, n in (("training", 8), ("validation", 2), ("test", 2)):
        lists[split] = []
        for k in range(n):
            disc = ((y_x - generator.integers(10, 22, (2, 1, 1))) ** 2).sum(axis=0) < 50
            item = {"image": f"images/{split}_{k}.png", "label": f"labels/{split}_{k}.png", "group": f"{split}{k // 2}"}
            Image.fromarray((50 + 150 * disc).astype(np.uint8)).save(folder / item["image"])
            Image.fromarray(disc.astype(np.uint8)).save(folder / item["label"])
            lists[split].append(item)
    (folder / "datalist.json").write_text(json.dumps(lists))
    return folder


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, Any]:
    """Options for a generator and the interpreter that belongs to it, both untrained, and for one of another."""
    for name in ("generator", "other"):
        torch.manual_seed(len(name))
        generator = Generator(32, 1, 8, 8, channel_base=128, channel_max=8)
        torch.save(generator.state_dict(), tmp_path / f"{name}.pt")
    interpreter = StyleInterpreter(PixelClassifierEnsemble(generator.feature_channels, 2, n_classifiers=2, widths=[8]))
    interpreter.belongs_to(generator)
    torch.save(interpreter.state_dict(), tmp_path / "interpreter.pt")
    return {"generator_weights": tmp_path / "other.pt", "interpreter_weights": tmp_path / "interpreter.pt"}


def edit_list(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads((folder / "datalist.json").read_text())
    change(content)
    (folder / "datalist.json").write_text(json.dumps(content))


def save(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(path)


SPOILED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "larger slice": (
        lambda data: save(data / "images/training_1.png", np.eye(64, dtype=np.uint8)),
        "training_1.png: is 64x64 px, and image_size is 32",
    ),
    "slice that is not square": (
        lambda data: save(data / "images/training_1.png", np.eye(32, dtype=np.uint8)[:20]),
        "training_1.png: is 32x20 px, and image_size is 32",
    ),
    "colours": (
        lambda data: save(data / "images/training_1.png", np.arange(3072, dtype=np.uint8).reshape(32, 32, 3)),
        "training_1.png: pixel mode 'RGB', expected a grey image of 8 bits",
    ),
    "16 bits": (
        lambda data: save(data / "images/training_1.png", np.full((32, 32), 999, np.uint16)),
        "training_1.png: pixel mode 'I;16'",
    ),
    "broken file": (
        lambda data: (data / "images/training_1.png").write_bytes(b"\x89PNG\r\n"),
        "training_1.png: not a readable image file",
    ),
    "patient in two splits": (
        lambda data: edit_list(data, lambda lists: lists["test"][1].update(group="training0")),
        "datalist.json: item 0 of its split 'training' and item 1 of 'test' are of one patient or group",
    ),
    "no JSON": (lambda data: (data / "datalist.json").write_text("{"), "datalist.json: is not JSON"),
    "no list": (lambda data: (data / "datalist.json").unlink(), "datalist.json: no such file"),
    "no items": (
        lambda data: edit_list(data, lambda lists: lists.pop("training")),
        "datalist.json: there is no item in its split 'training'; it has validation, test",
    ),
}


@pytest.mark.parametrize("config", ["train_gan", "train"])
@pytest.mark.parametrize("case", SPOILED)
def test_slices_and_lists_that_do_not_fit_are_refused_before_a_training(
    data: Path, tmp_path: Path, case: str, config: str
) -> None:
    spoil, message = SPOILED[case]
    spoil(data)
    options = {**SHORT, **(WIDTHS | SHAPE if config == "train_gan" else SEGMENTER)}
    assert message in refusal(config, **options | {"cache_rate": "1"}, dataset_dir=data, ckpt_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_slices_of_one_value_fewer_than_a_batch_and_other_channels_are_no_data_for_a_generator(
    data: Path, tmp_path: Path
) -> None:
    options = {**SHORT, **SHAPE, **WIDTHS, "cache_rate": "1", "dataset_dir": data, "ckpt_dir": tmp_path / "out"}
    message = "8 slices of its split 'training' are fewer than the 9 of a batch: give a smaller batch_size"
    assert message in refusal("train_gan", **options | {"batch_size": "9"})
    assert "has 1 channels, and in_channels is 3" in refusal("train_gan", **options, in_channels=3)
    save(data / "images/training_1.png", np.full((32, 32), 77, np.uint8))
    assert "training_1.png: all its pixels have one value" in refusal("train_gan", **options)
    assert not (tmp_path / "out").exists()


def test_a_generator_learns_from_slices_without_label_maps(data: Path, tmp_path: Path) -> None:
    edit_list(data, lambda lists: [item.pop("label") for item in lists["training"]])
    options = {**SHORT, **SHAPE, "dataset_dir": data}
    run("train_gan", **options, **WIDTHS, ckpt_dir=tmp_path / "generator")
    assert (tmp_path / "generator" / "model.pt").is_file()
    message = "item 0 of its split 'training' has no label"
    assert message in refusal("train", **SHORT | SEGMENTER, dataset_dir=data, ckpt_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ("train_gan", {"image_size": "48"}, "image_size is 48"),
        ("train_gan", {"image_size": "64.5"}, "--image_size is '64.5', expected a whole number"),
        ("train_gan", {"max_epochs": "0"}, "--max_epochs is 0, expected 1 or more"),
        ("train_gan", {"batch_size": "-4"}, "--batch_size is -4, expected 1 or more"),
        ("train_gan", {"learning_rate": "fast"}, "--learning_rate is 'fast', expected a number"),
        ("train_gan", {"augment": "flips"}, "'flips', which is none of"),
        ("train", {"augmentation": "storng"}, "storng"),
        ("train", {"n_labelled": "9"}, "n_labelled is 9, and "),
        ("train", {"n_labelled": "2.5"}, "n_labelled is 2.5, and "),
        ("train", {"validation_split": "val"}, "no item in its split 'val'; it has training, validation, test"),
        ("train", {"class_names": "background,nucleus"}, "its classes are background, disc, those of the network"),
        ("train", {"window_hu": "600,-1000"}, "window_hu is [600, -1000], expected two HU, low and high"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(
    data: Path, tmp_path: Path, config: str, options: dict[str, str], message: str
) -> None:
    usual = {**SHORT, **SEGMENTER, "dataset_dir": data, "ckpt_dir": tmp_path / "out"}
    usual |= WIDTHS if config == "train_gan" else {}
    usual = {name: value for name, value in usual.items() if name != "channels" or config == "train"}
    assert message in refusal(config, **usual | options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": "0"}, "count is 0"),
        ({"count": "-3"}, "count is -3"),
        ({"count": "2.5"}, "--count is '2.5', expected a whole number"),
        ({"truncation": "abc"}, "--truncation is 'abc', expected a number"),
        ({"truncation": "7"}, "truncation is 7, expected a number from 0 to 2"),
        ({"drop_uncertain": "1"}, "drop_uncertain is 1, expected 0 or more, and less than 1"),
        ({"drop_uncertain": "0.9"}, "drop_uncertain is 0.9, which leaves nothing of 3 images"),
        ({"shares": "1"}, "shares is [1], expected those of training, validation and test"),
        ({"class_names": "disc"}, "n_classes is 1, expected 2 to 255"),
        ({"generator_weights": "GENERATOR"}, "the interpreter was trained on the generator"),
        ({"generator_weights": "INTERPRETER"}, "weights do not fit the network"),
        ({"generator_weights": "cut.pt"}, "cut.pt: is truncated"),
        ({"generator_weights": "nan.pt"}, "nan.pt: blocks.0.const is not finite"),
        ({"interpreter_weights": "none.pt"}, "none.pt: no such file; weights were expected there"),
    ],
)
def test_generate_refuses_weights_and_options_before_it_writes(
    tmp_path: Path, weights: dict[str, Any], options: dict[str, str], message: str
) -> None:
    good = torch.load(weights["generator_weights"], weights_only=True)
    (tmp_path / "cut.pt").write_bytes(weights["generator_weights"].read_bytes()[:5000])
    torch.save({**good, "blocks.0.const": good["blocks.0.const"] * float("nan")}, tmp_path / "nan.pt")
    files = {"GENERATOR": "generator.pt", "INTERPRETER": "interpreter.pt"}
    options = {
        name: str(tmp_path / files.get(value, value)) if name.endswith("_weights") else value
        for name, value in options.items()
    }
    usual = {**SHAPE, **WIDTHS, **CLASSIFIER, **weights, "count": "3", "output_dir": tmp_path / "out"}
    assert message in refusal("generate", **usual | options)
    assert not (tmp_path / "out").exists()


def test_neither_generate_nor_project_nor_pseudo_label_takes_the_place_of_a_data_set(
    data: Path, tmp_path: Path, weights: dict[str, Any]
) -> None:
    before = contents(data)
    generator = {**SHAPE, **WIDTHS, "generator_weights": weights["generator_weights"]}
    message = "datalist.json: is of another data set (discs) and would be lost: take another output_dir"
    assert message in refusal("generate", **generator, interpreter_weights="$None", count=2, output_dir=data)
    few = {**SHORT, "dataset_dir": data, "n_labelled": "4"}
    assert message in refusal("project", **generator | few, ckpt_dir=tmp_path / "latents", output_dir=data)
    torch.save(untrained_segmenter().state_dict(), tmp_path / "segmenter.pt")
    pseudo = {**SEGMENTER, "dataset_dir": data, "ckpt_path": tmp_path / "segmenter.pt", "cache_rate": "0"}
    assert message in refusal("pseudo_label", **pseudo, skip_labelled=4, output_dir=data)
    assert "none of the 8 items of its split 'training' is left, 8 labelled" in refusal(
        "pseudo_label", **pseudo, skip_labelled=8, output_dir=tmp_path / "out"
    )
    assert "n_labelled is 9, and " in refusal("project", **generator | few | {"n_labelled": "9"}, ckpt_dir=tmp_path)
    assert "there is no slice to project" in refusal(
        "project", **generator | few | {"n_labelled": 0}, ckpt_dir=tmp_path
    )
    assert contents(data) == before


def untrained_segmenter() -> torch.nn.Module:
    options = {"class_names": ["background", "disc"], "channels": [4, 4, 8, 8, 8, 4]}
    return open_configs(
        Path(__file__).parents[2] / "bundles" / "ct_datasetgan", ["train"], **options
    ).get_parsed_content("network_def")


def test_slices_of_other_classes_or_another_size_are_not_added(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "images").mkdir(parents=True)
    save(other / "images/a.png", np.eye(16, dtype=np.uint8))
    items = [{"image": "images/a.png", "label": "images/a.png"}]
    usual = {**SHORT, **SEGMENTER, "cache_rate": "1", "dataset_dir": data, "ckpt_dir": tmp_path / "out"}
    for labels, message in (
        ({"0": "background", "1": "nucleus"}, "its classes are background, nucleus, those of the network"),
        ({"0": "background", "1": "disc"}, "a.png: is 16x16 px, and image_size is 32"),
    ):
        (other / "datalist.json").write_text(json.dumps({"labels": labels, "training": items}))
        assert message in refusal("train", **usual, added_dir=other)
    assert not (tmp_path / "out").exists()


def test_a_generator_that_diverges_keeps_its_last_checkpoint_and_resumes_with_its_own_options_alone(
    data: Path, tmp_path: Path
) -> None:
    usual = {**SHORT, **SHAPE, **WIDTHS, "dataset_dir": data, "ckpt_dir": tmp_path / "out"}
    run("train_gan", **usual)
    before = contents(tmp_path / "out")
    assert "a loss is not finite after" in refusal("train_gan", **usual | {"learning_rate": "1e9", "replace": "true"})
    more = {**usual, "max_epochs": "2", "resume": "true"}
    for options, message in (
        ({"learning_rate": "0.01"}, "resume.ckpt: begun with learning_rate 0.0025, and this training has 0.01"),
        ({"z_dim": "4"}, "resume.ckpt: network is that of a training with other options (size mismatch for mapping"),
        ({"path_length_weight": "2"}, "resume.ckpt: lacks the part 'path_length'"),
        ({"batch_size": "8"}, "resume.ckpt: begun with batch_size 4, and this training has 8"),
    ):
        assert message in refusal("train_gan", **more | options)
    run("train_gan", **more | {"max_epochs": "1"})
    assert contents(tmp_path / "out") == before
    run("train_gan", **more)
    assert contents(tmp_path / "out") != before


def cylinder() -> np.ndarray:
    _, y, x = np.mgrid[:6, :40, :40]
    return np.where((y - 20) ** 2 + (x - 20) ** 2 < 150, 0, -1000).astype(np.int16).transpose(2, 1, 0)


def nifti(path: Path, values: np.ndarray, *, degrees: float = 0) -> None:
    turn, affine = np.radians(degrees), np.diag([2.0, 2.0, 4.0, 1.0])
    affine[:2, :2] = 2 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


VOLUMES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "0 to 255": (
        lambda folder: nifti(folder / "a.nii.gz", ((cylinder() + 1000) / 4).astype(np.int16)),
        "a.nii.gz: values from 0 to 250, only 0.00% below -500",
    ),
    "0 to 1": (
        lambda folder: nifti(folder / "a.nii.gz", ((cylinder() + 1000) / 1000).astype(np.float32)),
        "a.nii.gz: values from 0 to 1",
    ),
    "four axes": (lambda folder: nifti(folder / "a.nii.gz", cylinder()[..., None]), "expected a volume of three axes"),
    "oblique": (
        lambda folder: nifti(folder / "a.nii.gz", cylinder(), degrees=20),
        "the affine is oblique, 20.0 degrees off",
    ),
    "nothing": (lambda folder: None, "holds no image"),
}


@pytest.mark.parametrize("case", VOLUMES)
def test_volumes_that_are_no_ct_in_hu_are_not_segmented(tmp_path: Path, case: str) -> None:
    make, message = VOLUMES[case]
    (tmp_path / "volumes").mkdir()
    make(tmp_path / "volumes")
    torch.save(untrained_segmenter().state_dict(), tmp_path / "segmenter.pt")
    options = {**SEGMENTER, "ckpt_path": tmp_path / "segmenter.pt", "dataset_dir": tmp_path / "volumes"}
    assert message in refusal("inference", **options, output_dir=tmp_path / "out")
    assert list(contents(tmp_path / "out")) == ([] if case == "nothing" else [".run.json", "per_image.csv"])


def test_a_volume_that_cannot_be_read_costs_its_row_and_not_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "volumes").mkdir()
    for name in ("a", "b", "c"):
        nifti(tmp_path / "volumes" / f"{name}.nii.gz", cylinder())
    broken = tmp_path / "volumes" / "b.nii.gz"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    torch.save(untrained_segmenter().state_dict(), tmp_path / "segmenter.pt")
    options = {**SEGMENTER, "ckpt_path": tmp_path / "segmenter.pt", "dataset_dir": tmp_path / "volumes"}
    run("inference", **options, output_dir=tmp_path / "out")
    assert "3 in, 2 used, 1 left out: per_image.csv says why." in capsys.readouterr().out
    table = list(csv.DictReader((tmp_path / "out" / "per_image.csv").read_text().splitlines()))
    assert [(row["image"], bool(row["failure"])) for row in table] == [
        ("a.nii.gz", 0),
        ("b.nii.gz", 1),
        ("c.nii.gz", 0),
    ]
    assert str(tmp_path) not in table[1]["failure"]
    assert table[1]["share_background"] == ""
    assert sorted(path.name for path in (tmp_path / "out" / "label_maps").iterdir()) == ["a.nii.gz", "c.nii.gz"]


def test_series_with_a_gap_or_of_mixed_orientation_are_not_segmented(
    tmp_path: Path, write_ct_series: Callable[..., Path]
) -> None:
    torch.save(untrained_segmenter().state_dict(), tmp_path / "segmenter.pt")
    options = {**SEGMENTER, "ckpt_path": tmp_path / "segmenter.pt"}
    hu = cylinder().transpose(2, 1, 0)
    gap = write_ct_series(tmp_path / "gap", hu, without=[2])
    assert "10.00 mm from the slice at -295.00 mm to the next" in refusal(
        "inference", **options, dataset_dir=gap, output_dir=tmp_path / "out"
    )
    mixed = write_ct_series(tmp_path / "mixed", hu, changes={3: {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}})
    assert "ImageOrientationPatient is 1, 0, 0, 0, 0, -1" in refusal(
        "inference", **options, dataset_dir=mixed, output_dir=tmp_path / "out_2"
    )
    for name in ("out", "out_2"):
        assert contents(tmp_path / name).keys() <= {".run.json", "per_image.csv"}
