"""A training that starts from weights starts from those of its own network, for its own classes."""

import hashlib
import json
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from clinbundles.engines.training.initial_weights import (
    check_initial_weights,
    describe_start,
    start_facts,
    start_from,
    start_stages,
)
from clinbundles.engines.weights_card import read_card, write_card
from clinbundles.nets.strided_unet import StridedUNet
from clinbundles.nets.two_stage import TwoStageSegmenter
from clinbundles.scripts.bundle import ROOT, load_network, open_configs, run_configs
from clinbundles.scripts.doctor.run import on_path
from clinbundles.scripts.pack.archive import unzip
from clinbundles.scripts.pack.run import pack

BUNDLES = sorted(p.parents[1] for p in ROOT.glob("bundles/*/configs/metadata.json"))
# Of options that the shipped weights' network shares, so that a step is short.
SHORT = {
    "covid_xray_transfer": {"max_epochs": 1},
    "ct_datasetgan": {"max_epochs": 1, "steps_per_epoch": 1},
    "gaze_polyp_segmentation": {"max_epochs": 1},
    "pace_cell_segmentation": {"max_epochs": 1, "steps_per_epoch": 1, "patch_size": 64},
    "two_stage_segmentation": {"max_epochs": 1, "coarse_weights": None, "image_size": 256},
}


def saved(path: Path, network: nn.Module, **options: Any) -> Path:
    torch.save(network.state_dict(), path)
    write_card(path, {"options": options})
    return path


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_every_bundle_goes_on_from_the_whole_network_that_it_ships_and_its_warning_goes_with_it(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One step of next to no width changes next to nothing of what a training starts from."""
    shipped = bundle / "models" / "model.pt"
    options = {"learning_rate": 1e-9} if bundle.name != "covid_xray_transfer" else {}
    if bundle.name == "covid_xray_transfer":
        options["phases"] = [{"name": "all layers", "layers": "all", "learning_rate": 1e-9}]
    options |= {"cache_rate": 0.0, "initial_weights": str(shipped), "ckpt_dir": str(tmp_path)} | SHORT[bundle.name]
    run_configs(bundle, ["train"], **options)
    before, after = (torch.load(path, weights_only=True) for path in (shipped, tmp_path / "model.pt"))
    assert before.keys() == after.keys()
    learned = [name for name, value in before.items() if value.is_floating_point() and name.endswith(".weight")]
    assert learned
    for name in learned:
        torch.testing.assert_close(after[name], before[name].float(), atol=1e-3, rtol=1e-3)

    first, card = read_card(shipped), read_card(tmp_path / "model.pt")
    digest = hashlib.sha256(shipped.read_bytes()).hexdigest()
    facts = {name: first[name] for name in ("data_name", "licence", "warning")}
    assert card["initial_weights"] == [{"name": "model.pt", "sha256": digest, **facts}]
    assert str(ROOT) not in json.dumps(card)
    warning = f"These weights went on from weights whose card says: {first['warning']}"
    assert card["warning"] == warning
    capsys.readouterr()
    pack(str(bundle), ckpt_path=str(tmp_path / "model.pt"), out=str(tmp_path))
    (file,) = tmp_path.glob("*.zip")
    folder = unzip(file, tmp_path)
    assert warning in (folder / "docs" / "README.md").read_text()
    weights = json.loads((folder / "configs" / "metadata.json").read_text())["weights"]
    assert f"{first['licence']}, of model.pt before them" in weights["licence"]
    with on_path(folder):
        load_network(open_configs(folder, ["inference"]))
    assert warning in capsys.readouterr().out.splitlines()


def test_weights_of_a_third_training_name_both_before_them_and_their_warning_once(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(nn.Linear(2, 2).state_dict(), path)
    write_card(path, {"data_name": "eyes", "warning": "For research."})
    first = start_facts(describe_start(path))
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "b.pt")
    write_card(tmp_path / "b.pt", {"data_name": "more eyes", **first})
    second = start_facts(describe_start(tmp_path / "b.pt"))
    assert [(start["name"], start["data_name"]) for start in second["initial_weights"]] == [
        ("b.pt", "more eyes"),
        ("a.pt", "eyes"),
    ]
    assert second["warning"] == first["warning"] == "These weights went on from weights whose card says: For research."
    assert start_facts(describe_start("ResNet50_Weights.IMAGENET1K_V1")) == {
        "initial_weights": [{"name": "ResNet50_Weights.IMAGENET1K_V1"}]
    }
    assert start_facts([]) == {}


def test_another_network_or_other_classes_of_the_same_number_are_refused_by_the_card(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", nn.Linear(2, 2), network_name="UNet", class_names=["sick", "well"])
    same = {"network_name": "UNet", "class_names": ["sick", "well"]}
    start_from(nn.Linear(2, 2), path, options=same)
    with pytest.raises(ValueError, match=r'a\.pt: was trained with network_name "UNet", and this run has "FPN"'):
        start_from(nn.Linear(2, 2), path, options=same | {"network_name": "FPN"})
    turned = same | {"class_names": ["well", "sick"]}
    sentence = 'a.pt: was trained with class_names ["sick", "well"], and this training has ["well", "sick"]: make '
    sentence += """the datalist by clinbundles prepare class_folder --class_names '["sick", "well"]', or """
    with pytest.raises(ValueError, match=re.escape(sentence)):
        start_from(nn.Linear(2, 2), path, options=turned)
    others = same | {"class_names": ["a", "b"]}
    network = nn.Sequential(OrderedDict(dense=nn.Linear(2, 2), head=nn.Linear(2, 2)))
    with pytest.raises(ValueError, match=r'has \["a", "b"\]: give --leave_out head, which then starts anew'):
        start_from(network, path, options=others)
    check_initial_weights(path, turned, leave_out=["head"])
    check_initial_weights(None, turned)
    check_initial_weights("ResNet50_Weights.IMAGENET1K_V1", turned)


def test_a_last_layer_for_other_classes_starts_anew_where_it_is_left_out(tmp_path: Path) -> None:
    first = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    path = saved(tmp_path / "a.pt", first, class_names=["a", "b"])
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    start_from(network, path, options={"class_names": ["a", "b", "c"]}, leave_out=["1"])
    assert torch.equal(network[0].weight, first[0].weight)


def test_weights_of_an_encoder_are_told_their_option(tmp_path: Path) -> None:
    path = saved(tmp_path / "encoder.pt", nn.Conv2d(1, 1, 1))
    with pytest.raises(
        ValueError, match=r"^--initial_weights .*encoder\.pt: .* of its encoder alone, --encoder_weights"
    ):
        start_from(nn.Linear(2, 2), path, options={}, of_a_part="encoder_weights")


def test_a_file_of_both_stages_starts_both_and_no_other_stage_1_may_be_named(tmp_path: Path) -> None:
    def network(scale: int = 4) -> TwoStageSegmenter:
        return TwoStageSegmenter(StridedUNet(channels=(4,) * 5), StridedUNet(channels=(4,) * 5), scale=scale)

    whole, options = network(), {"scale": 4, "conditioned": False}
    path = saved(tmp_path / "both.pt", whole, **options)
    assert json.loads(path.with_suffix(".json").read_text())["options"] == read_card(path)["options"]
    other = network()
    start_stages(other, coarse_weights=None, initial_weights=path, options=options)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in whole.state_dict().items())
    with pytest.raises(ValueError, match=r"both\.pt: has both stages, .* give --coarse_weights none"):
        start_stages(network(), coarse_weights=tmp_path / "no.pt", initial_weights=path, options=options)
    with pytest.raises(ValueError, match=r"both\.pt: was trained with scale 4, and this run has 2"):
        start_stages(network(2), coarse_weights=None, initial_weights=path, options=options | {"scale": 2})
    high = saved(tmp_path / "high.pt", whole.high_net, scale=8)  # of a training at full size, whose scale is no matter
    start_stages(network(), coarse_weights=None, initial_weights=high, options=options)


@pytest.mark.parametrize(
    ("bundle", "name", "value"),
    [
        ("covid_xray_transfer", "intensity_mean", [0.5] * 3),
        ("covid_xray_transfer", "intensity_std", [0.5] * 3),
        ("ct_datasetgan", "window_hu", [-500, 500]),
        ("gaze_polyp_segmentation", "color_space", "LUV"),
        ("pace_cell_segmentation", "mean", [0.2] * 3),
        ("pace_cell_segmentation", "std", [0.2] * 3),
    ],
)
def test_weights_of_images_prepared_otherwise_are_refused_and_of_another_size_are_not(
    bundle: str, name: str, value: Any
) -> None:
    folder = ROOT / "bundles" / bundle
    options = {"initial_weights": str(folder / "models" / "model.pt")}
    check = "checked_weights" if bundle == "pace_cell_segmentation" else "start_weights"
    parser = open_configs(folder, ["train"], **options, **({} if "pace" in bundle else {"image_size": 96}))
    if bundle != "covid_xray_transfer":  # whose dense layer is of a size
        parser.get_parsed_content(check)
    with pytest.raises(RuntimeError, match=r"start_from|check_initial_weights") as caught:
        open_configs(folder, ["train"], **options, **{name: value}).get_parsed_content(check)
    assert f"was trained with {name} " in str(caught.value.__cause__)
