import json
from pathlib import Path

import pytest

from clinbundles.scripts.reproduce.plan import choose_tables, entries, make_jobs

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
