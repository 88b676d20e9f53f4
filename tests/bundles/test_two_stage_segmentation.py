"""The two-stage bundle from its shipped configs: both stages trained, joined, evaluated and used on a folder."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import run as run_bundle
from PIL import Image

from clinbundles.engines.sentences import sentence_of
from clinbundles.scripts.bundle import config_files, run_configs

BUNDLE = Path(__file__).parents[2] / "bundles" / "two_stage_segmentation"
SMALL: dict[str, Any] = {
    "image_size": 128,
    "channels": [4, 4, 4, 4, 4],
    "cache_rate": 0.0,
    "max_epochs": 1,
    "val_interval": 1,
}
# Windows of 32 and a stage 1 of 32 on images of 128.
TWO = {"scale": 4, "n_patches": 4, "n_select": 4, "windows_per_image": 2, "conditioned": False}


def run(*names: str, out: Path, **knobs: Any) -> None:
    run_configs(BUNDLE, names, output_dir=str(out), **{**SMALL, **knobs})


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages after an epoch on the shipped images: coarse/model.pt and both/model.pt."""
    folder = tmp_path_factory.mktemp("trained")
    run("train_coarse", out=folder, ckpt_dir=str(folder / "coarse"), scale=4)
    run(
        "train",
        out=folder,
        ckpt_dir=str(folder / "both"),
        coarse_weights=str(folder / "coarse" / "model.pt"),
        **TWO,
    )
    return folder


def test_stage_2_learns_while_stage_1_stays_what_it_was(trained: Path) -> None:
    coarse = torch.load(trained / "coarse" / "model.pt", weights_only=True)
    both = torch.load(trained / "both" / "model.pt", weights_only=True)
    assert {name.partition(".")[0] for name in both} == {"low_net", "high_net"}
    for name, value in coarse.items():
        torch.testing.assert_close(both[f"low_net.{name}"], value)
    assert any(not torch.equal(both[f"high_net.{name}"], value) for name, value in coarse.items())


def test_evaluation_reports_both_dice_and_what_it_cost(trained: Path, tmp_path: Path) -> None:
    both: dict[str, Any] = {"ckpt_path": str(trained / "both" / "model.pt"), **TWO}
    run("evaluate", out=tmp_path, **both)
    rows = list(csv.DictReader((tmp_path / "per_image.csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == ["Image_02L.jpg", "Image_06R.jpg", "Image_14L.jpg"]
    assert all(0 <= float(row[name]) <= 1 for row in rows for name in ("val_mean_dice", "val_soft_dice"))
    run("evaluate", out=tmp_path / "coarse", **{**both, "n_select": 0})
    full, stage_1 = (
        json.loads((p / "cost.json").read_text())["macs_per_image"] for p in (tmp_path, tmp_path / "coarse")
    )
    # One MAC count in 16 for stage 1 (side / 4), and 4 of 16 windows.
    assert full / stage_1 == pytest.approx((1 / 16 + 4 / 16) * 16, rel=1e-6)


def test_stage_1_of_one_training_can_be_joined_with_stage_2_of_another(trained: Path, tmp_path: Path) -> None:
    def first_image(**knobs: Any) -> np.ndarray:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        run("evaluate", out=folder, ckpt_path=str(trained / "both" / "model.pt"), **{**TWO, **knobs})
        return pixels(folder / "masks" / "Image_02L.png")

    changed = torch.load(trained / "coarse" / "model.pt", weights_only=True)
    changed["classify.bias"] += 100
    torch.save(changed, tmp_path / "changed.pt")
    everywhere = first_image(coarse_weights=str(tmp_path / "changed.pt"), n_select=0)
    assert everywhere.min() == 255
    assert (first_image(n_select=0) != everywhere).any()


def test_a_folder_of_images_becomes_masks_of_their_size_but_for_one_cut_off(trained: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    photograph = Image.fromarray(pixels(BUNDLE / "samples" / "images" / "Image_02L.jpg"))
    photograph.crop((0, 0, 500, 300)).save(images / "colour.png")
    photograph.convert("L").save(images / "grey.tif")
    (images / "cut.png").write_bytes((images / "colour.png").read_bytes()[:3000])
    run_configs(
        BUNDLE,
        ["inference"],
        dataset_dir=str(images),
        output_dir=str(tmp_path / "out"),
        ckpt_path=str(trained / "both" / "model.pt"),
        image_size=128,
        channels=SMALL["channels"],
        conditioned=False,
    )
    shapes = {p.stem: pixels(p).shape for p in (tmp_path / "out" / "masks").iterdir()}
    assert shapes == {"colour": (300, 500), "grey": (960, 999)}
    table = list(csv.DictReader((tmp_path / "out" / "per_image.csv").read_text().splitlines()))
    assert {row["image"]: bool(row["failure"]) for row in table} == {"colour.png": 0, "cut.png": 1, "grey.tif": 0}


@pytest.mark.parametrize(
    "knobs", [{"conditioned": True}, {"sampling": "uncertain"}, {"conditioned": True, "sampling": "uncertain"}]
)
def test_the_levers_of_training_take_a_step(trained: Path, tmp_path: Path, knobs: dict[str, Any]) -> None:
    coarse = str(trained / "coarse" / "model.pt")
    run("train", out=tmp_path, ckpt_dir=str(tmp_path), coarse_weights=coarse, **{**TWO, **knobs})
    widths = torch.load(tmp_path / "model.pt", weights_only=True)["high_net.encoder.0.0.weight"].shape
    assert widths[1] == (4 if "conditioned" in knobs else 3)


def test_grey_images_take_one_channel(tmp_path: Path) -> None:
    run("train_baseline", out=tmp_path, ckpt_dir=str(tmp_path), in_channels=1)
    assert torch.load(tmp_path / "model.pt", weights_only=True)["encoder.0.0.weight"].shape[1] == 1


def test_the_papers_recipe_needs_no_validation_keeps_the_last_weights_and_has_its_width(tmp_path: Path) -> None:
    small = {k: v for k, v in SMALL.items() if k not in ("channels", "val_interval")}
    content = json.loads((BUNDLE / "samples" / "datalist.json").read_text())
    del content["validation"]
    (tmp_path / "list.json").write_text(json.dumps(content))
    paths = {"ckpt_dir": str(tmp_path), "output_dir": str(tmp_path), "datalist": str(tmp_path / "list.json")}
    run_configs(BUNDLE, ["train_coarse", "paper"], **paths, **{**small, "batch_size": 1, "image_size": 256})
    weights = torch.load(tmp_path / "model.pt", weights_only=True)
    assert sum(value.numel() for value in weights.values()) == 18_842_241


def test_stage_2_works_behind_another_stage_1_whose_scale_is_that_of_the_run(trained: Path, tmp_path: Path) -> None:
    run("train_coarse", out=tmp_path, ckpt_dir=str(tmp_path / "half"), scale=2)
    options = {"ckpt_path": str(trained / "both" / "model.pt"), "coarse_weights": str(tmp_path / "half" / "model.pt")}
    run("evaluate", out=tmp_path / "out", **options, **{**TWO, "scale": 2})
    assert (tmp_path / "out" / "per_image.csv").is_file()
    for scale, weights in ((4, "half"), (2, "both")):
        given = options if weights == "half" else {"ckpt_path": options["ckpt_path"]}
        with pytest.raises(RuntimeError) as caught:
            run("evaluate", out=tmp_path / "wrong", **given, **{**TWO, "scale": scale})
        sentence = f"{weights}/model.pt: was trained with scale {6 - scale}, and this run has {scale}"
        assert sentence in str(sentence_of(caught.value))


def test_a_killed_refinement_goes_on_where_it_was(trained: Path, tmp_path: Path) -> None:
    knobs = {
        "ckpt_dir": str(tmp_path),
        "coarse_weights": str(trained / "coarse" / "model.pt"),
        "cosine_epochs": 2,
        **TWO,
    }
    run("train", out=tmp_path, **knobs)
    run("train", out=tmp_path, **{**knobs, "max_epochs": 2, "resume": True})
    resumed = torch.load(tmp_path / "resume.ckpt", weights_only=True)
    run(
        "train",
        out=tmp_path,
        **{**knobs, "max_epochs": 2, "ckpt_dir": str(tmp_path / "whole")},
    )
    whole = torch.load(tmp_path / "whole" / "resume.ckpt", weights_only=True)
    for name, value in whole["network"].items():
        torch.testing.assert_close(resumed["network"][name], value)


def test_what_does_not_fit_is_said_in_one_sentence(trained: Path, tmp_path: Path) -> None:
    def last_words(*names: str, **knobs: Any) -> str:
        with pytest.raises(RuntimeError) as caught:
            run(*names, out=tmp_path, ckpt_dir=str(tmp_path), **knobs)
        error: BaseException | None = caught.value
        while error is not None and error.__cause__ is not None:
            error = error.__cause__
        return str(error)

    coarse = str(trained / "coarse" / "model.pt")
    words = last_words("train", coarse_weights=coarse, **{**TWO, "n_patches": 3})
    assert "multiple of 32" in words or "n_patches=3" in words
    missing = last_words("train", coarse_weights=str(tmp_path / "none.pt"), **TWO)
    assert "none.pt" in missing


def test_false_as_text_is_refused_and_not_taken_for_true(tmp_path: Path) -> None:
    # As `python -m monai.bundle run --rotate false` hands it over.
    files = [str(file) for file in config_files(BUNDLE, ["train_baseline"])]
    for name in ("rotate", "conditioned", "resume"):
        parts = {"run": ["$print('ran')"], "bundle_root": str(BUNDLE), name: "false"}
        with pytest.raises(RuntimeError) as caught:
            run_bundle(config_file=files, logging_file=False, **parts)
        assert str(caught.value.__cause__) == (
            f"--{name} is the text 'false', expected True or False, with a capital letter."
        )
