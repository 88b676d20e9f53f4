"""The grid of the slice bundle: what its columns are, and the published values beside them."""

import json
import re
from pathlib import Path

BUNDLE = Path(__file__).parents[2] / "bundles" / "ct_datasetgan"


def test_arms_of_the_grid_spend_the_labels_that_their_names_say() -> None:
    plan = json.loads((BUNDLE / "configs" / "reproduce.json").read_text())
    columns = plan["columns"]["training_data"]
    trained = {
        name: column for name, column in columns.items() if "configs" not in column and "weights_of" not in column
    }
    assert len(trained) > 10
    for name, column in trained.items():
        knobs = column.get("knobs", {})
        if name.startswith("synthetic"):
            assert knobs["n_labelled"] == 0, name
            assert columns[column["after"]["added_dir"]]["configs"] == {"make": "generate"}
        elif number := re.search(r"(?:real|hybrid) (\d+)", name):
            assert knobs["n_labelled"] == int(number[1]), name
        if name.startswith("hybrid"):
            assert column["after"] == {"added_dir": "generated"}
        assert ("augmented" in name) == (knobs.get("augmentation") == "strong"), name
    assert columns["interpreter"]["after"] == {"dataset_dir": "projected"}
    assert [columns[f"projected{n}"]["knobs"]["n_labelled"] for n in ("", " 50", " 100")] == [30, 50, 100]
    assert columns["pseudo-labelled"]["knobs"] == {"skip_labelled": columns["pseudo-labels"]["knobs"]["n_labelled"]}
    assert columns["generated"]["knobs"]["count"] == 1500
    test_g = columns["generated test"]["knobs"]
    assert (test_g["first_seed"], test_g["shares"]) == (1_000_000, [0, 0, 1])
    assert columns["generated 15k"]["knobs"]["count"] == 15_000
    assert columns["generated filtered"]["knobs"]["drop_uncertain"] == 0.1
    assert columns["generated truncation 1"]["knobs"]["truncation"] == 1.0
    for scale in ("cpu", "gpu"):  # no label map of other slices chooses the epoch
        assert plan["scales"][scale]["max_epochs"] == plan["scales"][scale]["val_interval"]


def test_the_four_generators_differ_in_style_and_augmentation_alone() -> None:
    plan = json.loads((BUNDLE / "configs" / "reproduce.json").read_text())
    columns = plan["columns"]["training_data"]
    arms = [name.removeprefix("synthetic ") for name in plan["sets"]["generators"]]
    assert len(arms) == 4
    pairs = set()
    for arm in arms:
        assert columns[f"synthetic {arm}"]["after"] == {"added_dir": f"generated {arm}"}
        knobs = dict(columns[f"generator {arm}"]["knobs"])
        style, augment = knobs.pop("generator_style"), knobs.pop("augment")
        assert knobs == {"batch_size": 32, "steps_per_epoch": 32, "max_epochs": 120}
        pairs.add((style, augment))
        for stage in ("projected", "interpreter", "generated"):
            column = columns[f"{stage} {arm}"]
            assert column["after"]["generator_weights"] == f"generator {arm}"
            assert column["knobs"]["generator_style"] == style
        assert ("AdaIN" in arm, "ADA on" in arm) == (style == "adain", augment == "ct")
    assert pairs == {(style, augment) for style in ("adain", "modulation") for augment in ("none", "ct")}


def test_published_values_are_those_of_the_paper_for_their_columns() -> None:
    plan = json.loads((BUNDLE / "configs" / "reproduce.json").read_text())
    published = dict(zip(plan["columns"]["training_data"], plan["tables"]["1"]["published"]["CT"], strict=True))
    assert published["all real"] == 0.799
    assert published["hybrid 30"] == 0.762
    assert published["all real on test-G"] == 0.459
    assert [published[f"synthetic {n}"] for n in ("5k", "10k", "15k")] == [0.560, 0.569, 0.580]
    assert [published[f"synthetic {n} annotated"] for n in (50, 100)] == [0.626, 0.663]
