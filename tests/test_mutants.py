"""The mutants of ``make mutants`` are not run here, but can be: each names a value that is there."""

import copy
import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "tests" / "mutants.py"))
CHANGE, MUTANTS = SCRIPT["change"], list(SCRIPT["mutants"]())


def test_every_bundle_has_mutants_and_each_has_a_name_of_its_own() -> None:
    assert {bundle for bundle, *_ in MUTANTS} == {
        path.parents[1].name for path in ROOT.glob("bundles/*/configs/metadata.json")
    }
    assert len({name for _, _, name, _ in MUTANTS}) == len(MUTANTS) >= 18


@pytest.mark.parametrize(
    ("bundle", "config", "name", "changes"), MUTANTS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_mutant_changes_what_it_says(bundle: str, config: str, name: str, changes: dict) -> None:
    content = json.loads((ROOT / "bundles" / bundle / "configs" / f"{config}.json").read_text())
    before = copy.deepcopy(content)
    for id_, value in changes.items():
        CHANGE(content, id_, value)
    assert content != before, name


def test_a_mutant_that_is_out_of_date_is_named() -> None:
    config = {"loss": {"_target_": "DiceLoss", "batch": False}, "steps": [{"_target_": "a.RandFlipd", "prob": 0.5}]}
    for id_, value in (
        ("loss#gamma", 2),
        ("loss#batch", False),
        ("steps[RandZoomd]#prob", 1),
        ("steps[RandFlipd]#prob", 0.5),
    ):
        with pytest.raises(ValueError, match=r"is not there, or .* already"):
            CHANGE(config, id_, value)
    CHANGE(config, "steps[RandFlipd]#prob", 1)
    assert config["steps"] == [{"_target_": "a.RandFlipd", "prob": 1}]
