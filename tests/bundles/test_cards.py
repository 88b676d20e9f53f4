"""Shipped weights have a card that is theirs, says what they were trained with, and agrees with inference.json."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from clinbundles.engines.weights_card import read_card
from clinbundles.scripts.bundle import open_configs

ROOT = Path(__file__).parents[2]
WEIGHTS = sorted(ROOT.glob("bundles/*/models/*.pt"))
BUNDLES = sorted(path.parents[1] for path in ROOT.glob("bundles/*/configs/inference.json"))
# Options of an inference that are not compared with the card of its weights, with the reason.
FREE = {
    "how and of what it runs": "batch_size num_workers precision dataset_dir output_dir ckpt_path runs_dir bundle_root",
    "what is written beside the result": "overlays cam_layer",
    "another use of the same weights, which a page describes": "n_patches n_select score score_on selector threshold "
    "budget_macs overlap blend patch_batch_size pre_nms post_nms detections score_threshold label_score_threshold",
    "how the pixels of a file are read, each file by its own": "intensity_range force",
    "cells are as large as they are": "pace_cell_segmentation:image_size max_size tile_size tile_overlap",
    "the network's, whose weights do not fit another": "network_name encoder_name channels decoder_channels "
    "in_channels dense_units dropout backbone anchor_sizes aspect_ratios n_stages box_units box_layers "
    "box_conv_layers mask_channels mask_layers",
    "gaze, which blurs at a training alone unless asked for": "arm blur_at sigma_base blur_weight kernel_size "
    "sigma_reference_size gaze_sigma_px gaze_file gaze_format",
    "of a training alone": "rpn_anchors box_rois mask_rois ramp_steps freeze_batch_norms",
}
PARTS = {"imports", "initialize", "run", "finalize", "handlers", "name_knobs", "device", "network"}
NOT_COMPARED = {name for names in FREE.values() for name in names.split()}


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda p: f"{p.parents[1].name}-{p.stem}")
def test_shipped_weights_have_a_card(weights: Path) -> None:
    card = read_card(weights)
    assert card["options"]
    assert len(card["data_name"]) > 10
    assert "research" in card["warning"]
    assert (weights.parents[1] / card["licence"]).is_file()
    parser = open_configs(weights.parents[1], ["inference"])
    config = {name: parser.get_parsed_content(name) for name in {*card["options"], "temperature"} if name in parser}
    repeated = {name: config[name] for name in card["options"] if name in config}
    repeated |= {"temperature": config["temperature"]} if "temperature" in config else {}
    assert repeated == {name: {**card["options"], **card}[name] for name in repeated}


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda p: p.name)
def test_what_changes_the_input_of_a_network_is_compared_with_the_card_of_its_weights(bundle: Path) -> None:
    config = json.loads((bundle / "configs" / "inference.json").read_text())
    compared = set(config["weights_loader"]["options"])
    evaluated = json.loads((bundle / "configs" / "evaluate.json").read_text())["validate#weights_loader"]["options"]
    assert all(name in str(evaluated) for name in compared - {"temperature"})
    options = {name for name, value in config.items() if not isinstance(value, dict) and "_target_" not in str(value)}
    options -= {name for name in options if name[0] == "_"} | PARTS
    assert options >= compared
    free = {name.removeprefix(f"{bundle.name}:") for name in NOT_COMPARED}
    assert options - free == compared


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda p: f"{p.parents[1].name}-{p.stem}")
def test_the_warning_is_one_sentence_that_says_what_for_and_what_not(weights: Path) -> None:
    warning = read_card(weights)["warning"]
    assert re.fullmatch(r"For research on [^.|]+, (not for|no) [^.|]+: [^.|]+\.", warning), warning


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda p: f"{p.parents[1].name}-{p.stem}")
def test_the_row_of_a_bundle_in_the_readme_has_the_warning_of_its_card(weights: Path) -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    (row,) = [line for line in lines if line.startswith(f"| [{weights.parents[1].name}](")]
    assert read_card(weights)["warning"].partition("For research")[2] in row


STRANGERS = [(path, entry) for path in WEIGHTS for entry in read_card(path).get("strangers", [])]


def test_cards_say_how_weights_do_on_strangers() -> None:
    assert {path.parents[1].name for path, _ in STRANGERS} >= {"covid_xray_transfer", "gaze_polyp_segmentation"}


@pytest.mark.parametrize(("weights", "entry"), STRANGERS, ids=lambda value: str(getattr(value, "stem", "")))
def test_a_card_and_the_table_of_results_agree_on_strangers(weights: Path, entry: dict[str, Any]) -> None:
    content = json.loads((weights.parents[1] / "docs" / "results.json").read_text())
    runs = [name for name, run in content["runs"].items() if run["command"] == entry["command"]]
    assert len(runs) == 1
    column, metric = entry.get("column", entry["data"]), entry["metric"]
    results = [r for r in content["results"] if r["run"] == runs[0] and r["column"] == column]
    assert len(results) == 1
    assert entry["data"] in results[0].values()
    numbers = results[0]["metrics"]
    assert entry["n"] == numbers["images"]["value"]
    ends = {name: entry[name] for name in ("value", "low", "high") if name in entry}
    assert ends == numbers[metric]


def test_all_bundles_have_weights() -> None:
    assert {path.parents[1].name for path in WEIGHTS} == {path.name for path in ROOT.glob("bundles/*")}
