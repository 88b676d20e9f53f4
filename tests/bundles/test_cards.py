"""Shipped weights have a card that is theirs, says what they were trained with, and agrees with inference.json."""

import json
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


def test_all_bundles_have_weights() -> None:
    assert {path.parents[1].name for path in WEIGHTS} == {path.name for path in ROOT.glob("bundles/*")}
