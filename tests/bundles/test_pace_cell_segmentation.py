"""The cell bundle from its shipped configs: the constants, every kind of supervision, people's points, resuming."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from monai.bundle import verify_net_in_out

from clinbundles.nets.cascade_mask_rcnn.network import cascade_mask_rcnn
from clinbundles.scripts import cli
from clinbundles.scripts.bundle import open_configs, run_configs

BUNDLE = Path(__file__).parents[2] / "bundles" / "pace_cell_segmentation"
SAMPLES = BUNDLE / "samples"
SMALL: dict[str, Any] = {
    "channels": 16,
    "box_units": 16,
    "mask_channels": 16,
    "mask_layers": 1,
    "post_nms": [100, 50],
    "patch_size": 96,
    "steps_per_epoch": 3,
    "max_epochs": 1,
    "val_interval": 1,
    "cache_rate": 0.0,
}
NETWORK = {name: SMALL[name] for name in ("channels", "box_units", "mask_channels", "mask_layers", "post_nms")}


def run(*names: str, out: Path, **options: Any) -> None:
    run_configs(BUNDLE, names, output_dir=str(out), **options)


def train(out: Path, **options: Any) -> dict[str, torch.Tensor]:
    run("train", out=out, ckpt_dir=str(out), **{**SMALL, **options})
    return torch.load(out / "model.pt", weights_only=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(folder)
    return folder / "model.pt"


def test_the_default_network_is_that_of_the_shipped_weights() -> None:
    shapes = {name: value.shape for name, value in cascade_mask_rcnn(box_units=64).state_dict().items()}
    shipped = torch.load(BUNDLE / "models" / "model.pt", weights_only=True)
    assert {name: value.shape for name, value in shipped.items()} == shapes
    # What they were trained with travels with them.
    assert shipped["anchors"].tolist() == [8, 16, 32, 64, 128, 0.5, 1, 2, 3, 4]
    assert 0.05 < float(shipped["chosen_threshold"]) < 1


def test_the_learning_rate_warms_up_by_steps_and_falls_twice() -> None:
    parser = open_configs(BUNDLE, ["train"], **{**NETWORK, "steps_per_epoch": 10, "max_epochs": 10, "warmup_steps": 5})
    scheduler, optimizer = parser.get_parsed_content("lr_scheduler"), parser.get_parsed_content("optimizer")
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] == pytest.approx(1e-6)
    assert rates[6] == rates[69] == pytest.approx(1e-3)
    assert rates[71] == rates[89] == pytest.approx(1e-4)
    assert rates[-1] == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("supervision", "loss"),
    [
        ({"supervise_by": "mask"}, "loss_mask"),
        ({"supervise_by": "points", "n_points": 1}, "loss_points"),
        ({"supervise_by": "box"}, "loss_box_projection"),
        ({"supervise_by": "as given"}, "loss_mask"),
    ],
)
def test_each_kind_of_supervision_has_its_own_loss(supervision: dict[str, Any], loss: str) -> None:
    parser = open_configs(BUNDLE, ["train"], **{**SMALL, **supervision})
    network = parser.get_parsed_content("network").train()
    batch = next(iter(parser.get_parsed_content("train#dataloader")))
    losses = network(batch["image"], batch["instances"])
    of_masks = {name for name in losses if name.startswith(("loss_mask", "loss_points", "loss_box_p"))}
    assert {name for name in of_masks if float(losses[name].detach()) > 0} - {"loss_box_pairwise"} == {loss}


def test_one_stage_is_the_paper_before(tmp_path: Path) -> None:
    weights = train(tmp_path, n_stages=1)
    assert {name.split(".")[2] for name in weights if name.startswith("heads.stages.")} == {"0"}


def test_a_killed_training_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    steps = {"decay_steps": [2, 5], "warmup_steps": 4}
    train(tmp_path / "parts", **steps)
    train(tmp_path / "parts", max_epochs=2, resume=True, **steps)
    train(tmp_path / "whole", max_epochs=2, **steps)
    parts, whole = (torch.load(tmp_path / name / "resume.ckpt", weights_only=True) for name in ("parts", "whole"))
    assert int(whole["network"]["steps"]) == 6
    for name, value in whole["network"].items():
        torch.testing.assert_close(parts["network"][name], value)
    assert parts["lr_scheduler"] == whole["lr_scheduler"]


def test_people_s_points_without_masks_train_and_are_compared_on_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    content = json.loads((SAMPLES / "instances.json").read_text())
    for number, annotation in enumerate(content["annotations"]):
        del annotation["segmentation"]
        if number % 3 == 0:  # a box that nobody answered for
            del annotation["point_coords"], annotation["point_labels"]
    (tmp_path / "points.json").write_text(json.dumps(content))
    datalist = json.loads((SAMPLES / "datalist.json").read_text())
    for split in ("training", "validation", "test"):
        for item in datalist[split]:
            item["label"] = str(tmp_path / "points.json")
    (tmp_path / "list.json").write_text(json.dumps(datalist))
    train(tmp_path, dataset_dir=str(SAMPLES), datalist=str(tmp_path / "list.json"))
    said = capsys.readouterr().out
    assert "no masks here: AP is that of boxes" in said
    assert "val_ap" in said


def test_an_image_without_cells_trains_and_is_scored(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    content = json.loads((SAMPLES / "instances.json").read_text())
    datalist = json.loads((SAMPLES / "datalist.json").read_text())
    empty = {datalist[split][0]["image_id"] for split in ("training", "validation", "test")}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] not in empty]
    (tmp_path / "coco.json").write_text(json.dumps(content))
    for split in ("training", "validation", "test"):
        for item in datalist[split]:
            item["label"] = str(tmp_path / "coco.json")
    (tmp_path / "list.json").write_text(json.dumps(datalist))
    data = {"dataset_dir": str(SAMPLES), "datalist": str(tmp_path / "list.json")}
    train(tmp_path, **data)
    run("evaluate", out=tmp_path / "out", ckpt_path=str(tmp_path / "model.pt"), **NETWORK, **data)
    assert len(list(csv.DictReader((tmp_path / "out" / "per_image.csv").read_text().splitlines()))) == 3


def test_evaluation_writes_what_scoring_and_pictures_read(trained: Path, tmp_path: Path) -> None:
    run("evaluate", out=tmp_path, ckpt_path=str(trained), **NETWORK)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert {"val_mask_ap", "val_box_ap", "val_f1", "val_panoptic_quality", "val_threshold"} <= scores.keys()
    assert scores["val_point_accuracy"] is None
    images = [image["file_name"] for image in json.loads((tmp_path / "detections.json").read_text())["images"]]
    assert images == ["245b9958.png", "1d02c4b5.png", "57b49733.png"] or len(images) == 3
    assert json.loads((tmp_path / "cost.json").read_text())["parameters"] > 0


def test_the_shipped_weights_find_the_nuclei_of_the_samples(tmp_path: Path) -> None:
    run("evaluate", out=tmp_path)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["val_mask_ap50"] > 0.7
    assert scores["val_f1"] > 0.7


def test_a_large_image_is_searched_by_tiles_and_a_broken_one_costs_no_other(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    tifffile.imwrite(folder / "large.tif", np.random.default_rng(0).integers(0, 255, (300, 420), np.uint8))
    (folder / "broken.png").write_bytes(b"no image")
    tiles = {"tile_size": 200, "tile_overlap": 40}
    run("inference", out=tmp_path / "out", dataset_dir=str(folder), ckpt_path=str(trained), **NETWORK, **tiles)
    broken, large = csv.DictReader((tmp_path / "out" / "per_image.csv").read_text().splitlines())
    assert "not a readable image file" in broken["failure"]
    assert (large["height"], large["width"], large["failure"]) == ("300", "420", "")
    assert tifffile.imread(tmp_path / "out" / "label_maps" / "large.tif").shape == (300, 420)


def test_otsus_threshold_is_scored_by_the_same_evaluation(tmp_path: Path) -> None:
    run("otsu", out=tmp_path)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert 0.1 < scores["val_f1"] < 0.9
    assert scores["val_threshold"] == 0


def test_monais_own_check_of_the_network_passes() -> None:
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(BUNDLE / "configs" / "metadata.json"),
        config_file=str(BUNDLE / "configs" / "inference.json"),
        device="cpu",
    )


def test_weights_of_other_anchors_are_refused_in_one_sentence(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        run("evaluate", out=tmp_path, ckpt_path=str(trained), anchor_sizes=[[4], [8], [16], [32], [64]], **NETWORK)
    error: BaseException | None = caught.value
    while error is not None and error.__cause__ is not None and "trained with anchors" not in str(error):
        error = error.__cause__
    assert "model.pt: the weights were trained with anchors [8.0, 16.0" in str(error)


def test_a_threshold_chosen_on_other_images_travels_with_the_weights(tmp_path: Path) -> None:
    run("choose_threshold", out=tmp_path, dataset_dir=str(SAMPLES), datalist=str(SAMPLES / "datalist.json"))
    before = torch.load(BUNDLE / "models" / "model.pt", weights_only=True)
    after = torch.load(tmp_path / "model.pt", weights_only=True)
    threshold = json.loads((tmp_path / "scores.json").read_text())["val_threshold"]
    assert float(after["chosen_threshold"]) == threshold != float(before["chosen_threshold"])
    others = [name for name in before if name != "chosen_threshold"]
    assert all(torch.equal(before[name].to(after[name]), after[name]) for name in others)


def test_a_grid_of_masks_points_and_the_floor_is_trained_scored_and_compared(tmp_path: Path) -> None:
    columns = "full mask,8 points,Otsu + watershed"
    words = ["--rows", "PACE", "--columns", columns, "--seeds", "0", "--tracking", "false"]
    cli.main(["reproduce", BUNDLE.name, "--scale", "smoke", *words, "--output_dir", str(tmp_path)])
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    assert [result["column"] for result in results] == columns.split(",")
    assert results[2]["metrics"]["val_f1"]["mean"] > 0.3
    assert "difference" in results[1]["metrics"]["val_mask_ap"]
    assert results[0]["metrics"]["val_mask_ap"]["published"] == 0.4789
