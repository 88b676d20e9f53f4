import json
from pathlib import Path
from typing import Any

import pandas as pd

from clinbundles.scripts.report.results import check_results, merge_results
from clinbundles.scripts.reproduce.plan import Job
from clinbundles.scripts.reproduce.results import as_results, heading, sources_of
from clinbundles.scripts.reproduce.tables import Cell

PLAN: dict[str, Any] = {
    "rows": {"data_set": ["eyes"]},
    "columns": {"method": ["whole", "half"]},
    "tables": {"1": {"title": "Dice", "metric": "dice"}},
    "costs": {"2": {"title": "GMAC", "cost": "macs", "name": "gmacs"}},
}


def job(folder: Path, column: str, seed: int, **knobs: Any) -> Job:
    return Job(Cell("eyes", column, seed, folder), {}, {"seed": seed, "max_epochs": 2, **knobs}, {}, 0)


def summary_of(**half: float) -> pd.DataFrame:
    keys = [{"data_set": "eyes", "method": method} for method in ("whole", "half")]
    dice = [{"mean": 0.81234, "std": 0.01}, {"mean": 0.7, "std": 0.02, **half}]
    gmacs = [{"mean": 2.44712, "ratio": 1.0}, {"mean": float("nan")}]
    metrics = [{"table": "1", **key, **numbers} for key, numbers in zip(keys, dice, strict=True)]
    return pd.DataFrame(metrics + [{"table": "2", **key, **numbers} for key, numbers in zip(keys, gmacs, strict=True)])


def grid(tmp_path: Path, half_seeds: tuple[int, ...] = (0, 1), part: str = "") -> dict[str, Any]:
    jobs = [job(tmp_path, "whole", seed) for seed in (0, 1)]
    jobs += [job(tmp_path, "half", seed, scale=8, weights="/somewhere/model.pt") for seed in half_seeds]
    sources = sources_of(tmp_path, "cpu", PLAN, jobs, part=part)
    assert heading(sources).endswith("; cpu: max_epochs 2")
    content = as_results(PLAN, summary_of(difference=-0.1, difference_low=-0.2, difference_high=0.00004), sources)
    check_results(content, "results.json")
    return content


def test_a_run_stands_once_and_a_result_keeps_what_it_has_of_its_own(tmp_path: Path) -> None:
    content = grid(tmp_path)
    assert list(content["runs"]) == ["eyes"]
    run = content["runs"]["eyes"]
    assert (run["seeds"], run["scale"], run["data_sha256"]) == ([0, 1], "cpu: max_epochs 2", "not recorded")
    whole, half = content["results"]
    assert "settings" not in whole
    assert half["settings"] == {"scale": 8, "weights": "model.pt"}
    assert half["metrics"]["dice"] == {
        "mean": 0.7,
        "std": 0.02,
        "difference": -0.1,
        "difference_low": -0.2,
        "difference_high": 0.0,
    }


def test_costs_stand_apart_with_their_share_and_unknown_ones_are_left_out(tmp_path: Path) -> None:
    whole, half = grid(tmp_path)["results"]
    assert whole["metrics"]["dice"] == {"mean": 0.8123, "std": 0.01}
    assert whole["cost"] == {"gmacs": 2.447, "gmacs_ratio": 1.0}
    assert "cost" not in half


def test_a_column_of_other_seeds_and_a_set_of_columns_are_runs_of_their_own(tmp_path: Path) -> None:
    content = grid(tmp_path, half_seeds=(1,), part="levers")
    assert {name: run["seeds"] for name, run in content["runs"].items()} == {
        "eyes levers": [0, 1],
        "eyes levers seeds 1": [1],
    }
    assert [result["run"] for result in content["results"]] == list(content["runs"])


def test_a_grid_joins_a_bundles_results_as_it_is(tmp_path: Path) -> None:
    content = grid(tmp_path)
    merged = merge_results({**content, "tables": []}, grid(tmp_path, part="levers"), file="x")
    check_results(merged, "x")
    assert list(merged["runs"]) == ["eyes", "eyes levers"]
    assert len(merged["results"]) == 4


def test_folds_are_named_as_the_split_of_their_run(tmp_path: Path) -> None:
    for fold in range(2):
        items = {"training": [{"image": "a.png"}] * 3, "test": [{"image": f"{fold}.png"}]}
        (tmp_path / f"fold_{fold}.json").write_text(json.dumps({**items, "seed": 5}))
    jobs = [job(tmp_path, "whole", seed, datalist=str(tmp_path / f"fold_{seed}.json")) for seed in range(2)]
    (run,) = sources_of(tmp_path, "cpu", PLAN, jobs).values()
    assert run["split"] == "2 folds: 3/0/1 images, seed 5, values on test"
    (alone,) = sources_of(tmp_path, "cpu", PLAN, jobs[:1]).values()
    assert alone["split"] == "3/0/1 images, seed 5, values on test"
    assert run["split_sha256"] != alone["split_sha256"]
