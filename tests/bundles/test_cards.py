"""Shipped weights have a card that is theirs, says what they were trained with, and agrees with inference.json."""

import json
import re
from pathlib import Path
from typing import Any

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
