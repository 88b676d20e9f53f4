import json
from pathlib import Path

import pytest

from clinbundles.scripts.reproduce.plan import (
    choose_tables,
    entries,
    knobs_of_scale,
    leave_out_untaken,
    make_jobs,
    say_left_out,
)

PLANS = sorted(Path(__file__).parents[3].glob("bundles/*/configs/reproduce.json"))
PLAN = {
    "configs": {},
    "scales": {},
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
    given = {"encoder_name": "resnet18", "encoder_weights": "a.pt", "batch_size": 2}

    def fitted(*names: str) -> list:
        rows = {name: row for name, row in entries(plan, "rows", "tiny").items() if name in names}
        columns = entries(plan, "columns", "tiny")
        jobs = make_jobs(rows, columns, ["original"], ["0"], Path("out"), defaults={}, overrides=given)
        return leave_out_untaken(plan, jobs, given)

    unet, fpn = fitted("UNet", "FPN")
    assert unet.knobs == {"network_name": "UNet", "arm": "original", "seed": 0, "batch_size": 2}
    assert fpn.knobs == given | {"network_name": "FPN", "arm": "original", "seed": 0}
    assert say_left_out([unet, fpn]) == [
        "UNet: does not take encoder_name and encoder_weights: trained from random weights."
    ]
    with pytest.raises(ValueError, match="--encoder_name: none of UNet takes it"):
        fitted("UNet")


def test_a_datalist_may_be_another_for_each_seed() -> None:
    rows = {"eyes": {"knobs": {"datalist": "folds/fold_{seed}.json"}, "not": []}}
    columns = {"whole": {"configs": {}, "knobs": {}, "after": {}, "own": []}}
    jobs = make_jobs(rows, columns, ["whole"], ["0", "3"], Path("out"), defaults={}, overrides={})
    assert [job.knobs["datalist"] for job in jobs] == ["folds/fold_0.json", "folds/fold_3.json"]


def plans_with_the_papers_scale() -> list[Path]:
    return [file for file in PLANS if "paper" in json.loads(file.read_text())["scales"]]


@pytest.mark.parametrize("file", plans_with_the_papers_scale(), ids=lambda file: file.parents[1].name)
def test_the_papers_scale_is_the_papers_config(file: Path) -> None:
    plan, papers = json.loads(file.read_text()), json.loads((file.parent / "paper.json").read_text())
    assert knobs_of_scale(plan, "paper") == {}
    listed = [value for axis in ("rows", "columns") for value in plan[axis].values() if isinstance(value, dict)]
    own = [entry.get("scales", {}).get("paper", {}) for entries_of in listed for entry in entries_of.values()]
    assert not [name for knobs in own for name, value in knobs.items() if papers.get(name) == value]
    rows, columns = entries(plan, "rows", "paper"), entries(plan, "columns", "paper")
    jobs = make_jobs(rows, columns, list(columns), ["0"], Path("out"), defaults={}, overrides={})
    assert jobs
    for job in jobs:
        assert all(names[-1] == "paper" for stage, names in job.configs.items() if stage == "train")
        assert all(names[-2] == "paper" for stage, names in job.configs.items() if stage == "evaluate")


def test_a_config_as_a_scale_lies_under_the_one_that_evaluates() -> None:
    columns = {"whole": {"configs": {"train": "train_coarse", "evaluate": "train_coarse,evaluate"}}}
    plan = {**PLAN, "columns": {"method": columns}, "scales": {"paper": "paper", "tiny": {"max_epochs": 2}}}
    paper, tiny = (entries(plan, "columns", scale)["whole"]["configs"] for scale in ("paper", "tiny"))
    assert paper == {"train": ["train_coarse", "paper"], "evaluate": ["train_coarse", "paper", "evaluate"]}
    assert tiny == {"train": ["train_coarse"], "evaluate": ["train_coarse", "evaluate"]}
    assert (knobs_of_scale(plan, "paper"), knobs_of_scale(plan, "tiny")) == ({}, {"max_epochs": 2})
