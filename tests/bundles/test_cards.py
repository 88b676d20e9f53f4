"""Shipped weights have a card that is theirs, says what they were trained with, and agrees with inference.json."""

import json
import re
from pathlib import Path

import pytest

from clinbundles.engines.weights_card import read_card

ROOT = Path(__file__).parents[2]
WEIGHTS = sorted(ROOT.glob("bundles/*/models/*.pt"))


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda p: f"{p.parents[1].name}-{p.stem}")
def test_shipped_weights_have_a_card(weights: Path) -> None:
    card = read_card(weights)
    assert card["options"]
    assert len(card["data_name"]) > 10
    assert "research" in card["warning"]
    assert (weights.parents[1] / card["licence"]).is_file()
    config = json.loads((weights.parents[1] / "configs" / "inference.json").read_text())
    repeated = {name: config[name] for name in card["options"] if name in config}
    repeated |= {"temperature": config["temperature"]} if "temperature" in config else {}
    assert repeated == {name: {**card["options"], **card}[name] for name in repeated}


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda p: f"{p.parents[1].name}-{p.stem}")
def test_the_warning_is_one_sentence_that_says_what_for_and_what_not(weights: Path) -> None:
    warning = read_card(weights)["warning"]
    assert re.fullmatch(r"For research on [^.|]+, (not for|no) [^.|]+: [^.|]+\.", warning), warning


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda p: f"{p.parents[1].name}-{p.stem}")
def test_the_row_of_a_bundle_in_the_readme_has_the_warning_of_its_card(weights: Path) -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    (row,) = [line for line in lines if line.startswith(f"| [{weights.parents[1].name}](")]
    assert read_card(weights)["warning"].partition("For research")[2] in row


def test_all_bundles_have_weights() -> None:
    assert {path.parents[1].name for path in WEIGHTS} == {path.name for path in ROOT.glob("bundles/*")}
