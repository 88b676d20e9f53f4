import json
from pathlib import Path

import pytest

from clinbundles.scripts.reproduce.plan import choose_tables, entries, leave_out_untaken, make_jobs, say_left_out

PLAN = {
    "configs": {},
    "columns": {"method": {}},
    "tables": {"3a": {"title": "Dice", "metric": "dice"}, "30": {"title": "again", "metric": "dice"}},
    "costs": {"3b": {"title": "MAC", "cost": "macs", "name": "macs"}},
}


def test_a_number_stands_for_all_tables_that_begin_with_it() -> None:
    assert choose_tables(PLAN, 3) == ["3a", "3b"]
    assert choose_tables(PLAN, "30,3b") == ["30", "3b"]
    assert choose_tables(PLAN, None) == ["3a", "30", "3b"]
    with pytest.raises(ValueError, match="table 4 is not in"):
        choose_tables(PLAN, "3-4")


def test_a_column_that_needs_an_unknown_one_is_refused() -> None:
    plan = {**PLAN, "columns": {"method": {"fine": {"after": {"coarse_weights": "coarsest"}}}}}
    with pytest.raises(ValueError, match="'fine' needs 'coarsest', which is not one of the columns"):
        entries(plan, "columns", "tiny")


def knobs_of_models(scale: str, **overrides: object) -> dict[str, dict]:
    """By model of the X-ray bundle's grid: what its cell on the samples is run with."""
    bundle = Path(__file__).parents[3] / "bundles" / "covid_xray_transfer"
    plan = json.loads((bundle / "configs" / "reproduce.json").read_text())
    rows, columns = ({**entries(plan, axis, scale)} for axis in ("rows", "columns"))
    jobs = make_jobs(
        {"samples": rows["samples"]}, columns, list(columns), ["0"], Path("out"), defaults={}, overrides=overrides
    )
    return {job.cell.column: job.knobs for job in jobs}


def test_weights_from_the_command_line_reach_the_one_model_that_starts_from_imagenet() -> None:
    usual, given = knobs_of_models("paper"), knobs_of_models("paper", initial_weights="resnet50.pt", patience=3)
    assert given["Model_3"]["initial_weights"] == "resnet50.pt"
    assert all(knobs["patience"] == 3 for knobs in given.values())
    for model in given.keys() - {"Model_3"}:
        assert given[model].get("initial_weights") == usual[model].get("initial_weights"), model
    assert given["Model_2"]["initial_weights"].endswith("model.pt")
    assert given["ResNet-50 from scratch"]["initial_weights"] is None


def test_the_smoke_scale_needs_no_download() -> None:
    assert knobs_of_models("smoke")["Model_3"]["initial_weights"] is None
    assert "initial_weights" not in knobs_of_models("paper")["Model_3"]  # that of train_resnet50.json


def test_a_network_without_an_encoder_runs_without_its_options_and_the_tables_say_so() -> None:
    plan = {
        "configs": {"train": "train"},
        "rows": {"network_name": ["UNet", "FPN"]},
        "columns": {"arm": ["original"]},
        "leave_out": "clinbundles.nets.segmentation_network.untaken_encoder_options",
    }
    given = {"encoder_name": "resnet18", "initial_weights": "a.pt", "batch_size": 2}

    def fitted(*names: str) -> list:
        rows = {name: row for name, row in entries(plan, "rows", "tiny").items() if name in names}
        columns = entries(plan, "columns", "tiny")
        jobs = make_jobs(rows, columns, ["original"], ["0"], Path("out"), defaults={}, overrides=given)
        return leave_out_untaken(plan, jobs, given)

    unet, fpn = fitted("UNet", "FPN")
    assert unet.knobs == {"network_name": "UNet", "arm": "original", "seed": 0, "batch_size": 2}
    assert fpn.knobs == given | {"network_name": "FPN", "arm": "original", "seed": 0}
    assert say_left_out([unet, fpn]) == [
        "UNet: does not take encoder_name and initial_weights: trained from random weights."
    ]
    with pytest.raises(ValueError, match="--encoder_name: none of UNet takes it"):
        fitted("UNet")


def test_a_datalist_may_be_another_for_each_seed() -> None:
    rows = {"eyes": {"knobs": {"datalist": "folds/fold_{seed}.json"}, "not": []}}
    columns = {"whole": {"configs": {}, "knobs": {}, "after": {}, "own": []}}
    jobs = make_jobs(rows, columns, ["whole"], ["0", "3"], Path("out"), defaults={}, overrides={})
    assert [job.knobs["datalist"] for job in jobs] == ["folds/fold_0.json", "folds/fold_3.json"]
