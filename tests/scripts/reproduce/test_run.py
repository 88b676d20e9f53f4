import json
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from clinbundles.scripts import cli
from clinbundles.scripts.report.results import read_results
from clinbundles.scripts.reproduce import plan as grid_plan

ROOT = Path(__file__).parents[3]
PLAN = {
    "configs": {"train": "train", "evaluate": "evaluate"},
    "rows": {
        "data_set": {
            "eyes": {"knobs": {"dataset_dir": None, "image_size": 64}, "scales": {"tiny": {"image_size": 32}}},
            "cells": {"knobs": {"dataset_dir": None}, "not": ["fine"]},
            "samples": {},
        }
    },
    "columns": {
        "method": {
            "whole": {},
            "coarse": {"configs": {"train": "train"}, "scales": {"tiny": {"max_epochs": 3}}},
            "stage 1": {
                "like": "coarse",
                "configs": {"evaluate": "evaluate"},
                "after": {"coarse_weights": "coarse"},
                "knobs": {"n_select": 0, "ckpt_path": None},
            },
            "fine": {"after": {"coarse_weights": "coarse"}, "knobs": {"n_select": 2}},
            "finer": {"like": "fine", "knobs": {"n_select": 4}},
            "entropy": {"weights_of": "fine", "knobs": {"score": "entropy"}},
        }
    },
    "sets": {"methods": ["whole", "stage 1", "fine", "finer"], "levers": ["fine", "entropy"]},
    "scales": {"tiny": {"max_epochs": 2}},
    "tables": {"3a": {"title": "Dice", "metric": "dice"}, "30": {"title": "again", "metric": "dice"}},
    "costs": {"3b": {"title": "MAC", "cost": "macs", "name": "macs"}},
    "plot": "lines",
}
KNOBS = ["max_epochs", "image_size", "n_select", "score", "coarse_weights", "seed", "dataset_dir", "datalist"]


@pytest.fixture(scope="module")
def reproduce(load_script) -> ModuleType:
    return load_script("reproduce.run")


class Runs:
    """Stands in for run_configs: notes every call and writes what a training or an evaluation leaves behind."""

    def __init__(self) -> None:
        self.calls: list[dict] = []
        self.broken: set[str] = set()

    def __call__(self, _: Path, names: list[str], *, output_dir: str, **knobs) -> None:
        stage = names[-1]
        name = Path(output_dir).name if stage == "train" else Path(output_dir).parent.name
        self.calls.append({"name": name, "stage": stage, **knobs})
        if name in self.broken:
            raise RuntimeError(f"{name} broke")
        if stage == "train":
            (Path(knobs["ckpt_dir"]) / "model.pt").touch()
            return
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"image": ["a", "b"], "dice": [0.5, 0.7]}).to_csv(folder / "per_image.csv", index=False)
        (folder / "cost.json").write_text(json.dumps({"macs": 100}))

    def names(self) -> list[str]:
        return [f"{call['stage']} {call['name']}" for call in self.calls]

    def call(self, name: str, stage: str) -> dict:
        return next(c for c in self.calls if c["name"] == name and c["stage"] == stage)


@pytest.fixture
def runs(reproduce: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """A bundle called toy with the plan above, whose runs are only noted."""
    configs = tmp_path / "bundles" / "toy" / "configs"
    configs.mkdir(parents=True)
    (configs / "reproduce.json").write_text(json.dumps(PLAN))
    (configs / "train.json").write_text(json.dumps(dict.fromkeys(KNOBS)))
    (configs / "evaluate.json").write_text(json.dumps({"extends": ["train.json"], "ckpt_path": None}))
    found = Runs()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reproduce, "run_configs", found)
    return found


@pytest.fixture
def toy(tmp_path: Path) -> dict:
    return {
        "bundle": "toy",
        "scale": "tiny",
        "seeds": 0,
        "dataset_dirs": f"eyes={tmp_path / 'e'},cells={tmp_path / 'c'}",
        "output_dir": str(tmp_path / "out"),
        "tracking": False,
    }


def test_unknown_names_and_knobs_are_refused_before_anything_runs(reproduce: ModuleType, tmp_path: Path) -> None:
    gaze = "gaze_polyp_segmentation"
    for arguments, message in (
        ({"bundle": "absent"}, "'absent'"),
        ({"bundle": gaze, "scale": "huge"}, "'huge'"),
        ({"bundle": gaze, "tables": 9}, "table 9"),
        ({"bundle": gaze, "networks": "UNet,SegNet"}, "'SegNet'"),
        ({"bundle": gaze, "learning_rat": 0.1}, "--learning_rat is no value of .*; did you mean --learning_rate?"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            reproduce.reproduce(**arguments, output_dir=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_small_grid_runs_is_resumed_and_keeps_its_cells(
    reproduce: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = {
        "scale": "smoke",
        "networks": "UNet",
        "columns": "original,positive",
        "seeds": 0,
        "tables": "1,4",
        "output_dir": str(tmp_path),
        "tracking": False,
        "cache_rate": 0.0,
    }
    reproduce.reproduce("gaze_polyp_segmentation", **arguments)
    assert capsys.readouterr().out.endswith("2 cells in, 2 used, 0 left out as failed\n")
    results = sorted(tmp_path.glob("*/result.json"))
    assert [p.parent.name for p in results] == ["UNet_original_seed0", "UNet_positive_seed0"]
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} == {
        "tables.csv",
        "tables.md",
        "tables.png",
        "results.json",
    }
    table = pd.read_csv(tmp_path / "tables.csv")
    assert set(table["metric"]) == {"Dice", "Recall"}
    assert table["mean"].between(0, 1).all()

    content = read_results(tmp_path / "results.json")
    run = content["runs"]["UNet smoke scale cache_rate 0.0"]
    assert run["gaze"] == "simulated"
    assert len({run[f"{name}_sha256"] for name in ("data", "split", "gaze")}) == 3
    assert "20/6/6 images" in run["split"]
    assert [set(r["metrics"]) for r in content["results"]] == 2 * [{"val_mean_dice", "val_mean_recall"}]
    assert str(tmp_path) not in json.dumps(content)

    before = [p.stat().st_mtime_ns for p in results]
    reproduce.reproduce("gaze_polyp_segmentation", **arguments)
    assert before == [p.stat().st_mtime_ns for p in results]
    results[0].write_bytes(results[0].read_bytes()[:40])
    reproduce.reproduce("gaze_polyp_segmentation", **arguments)
    assert results[0].with_name("result.json.torn").stat().st_size == 40
    assert before[1] == results[1].stat().st_mtime_ns
    with pytest.raises(SystemExit, match="1 of 1 cells failed"):
        reproduce.reproduce("gaze_polyp_segmentation", **{**arguments, "columns": "original", "learning_rate": 0.5})
    assert "was run with" in capsys.readouterr().err
    assert json.loads(results[0].read_text())["knobs"]["arm"] == "original"
    assert (
        "- The smoke scale shows that everything runs: its values mean nothing." in (tmp_path / "tables.md").read_text()
    )


def test_cells_of_a_list_that_has_changed_are_refused_and_several_versions_of_the_code_are_said(
    reproduce: ModuleType, runs: Runs, toy: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    datalist = tmp_path / "e" / "datalist.json"
    datalist.parent.mkdir()
    datalist.write_text('{"test": [{"image": "a.png"}]}')
    (tmp_path / "c").mkdir()
    arguments = toy | {"rows": "eyes", "columns": "whole"}
    for seeds in ("0", "0,1"):
        reproduce.reproduce(**arguments | {"seeds": seeds})
    assert len([call for call in runs.calls if call["stage"] == "train"]) == 2
    (result,) = (tmp_path / "out").glob("*seed0/result.json")
    result.write_text(json.dumps(json.loads(result.read_text()) | {"code": "earlier"}))
    reproduce.reproduce(**arguments | {"seeds": "0,1"})
    assert "The cells were run by 2 versions of the code." in capsys.readouterr().out
    datalist.write_text('{"test": [{"image": "b.png"}]}')
    with pytest.raises(SystemExit, match="2 of 2 cells failed"):
        reproduce.reproduce(**arguments | {"seeds": "0,1"})
    assert "was run with another content of" in capsys.readouterr().err


def test_what_a_cell_needs_runs_first_and_is_handed_over(
    reproduce: ModuleType, runs: Runs, toy: dict, tmp_path: Path
) -> None:
    reproduce.reproduce(**toy, figure=3, rows="eyes")
    assert runs.names() == [
        "train eyes_whole_seed0",
        "evaluate eyes_whole_seed0",
        "train eyes_coarse_seed0",
        "evaluate eyes_stage1_seed0",
        "train eyes_fine_seed0",
        "evaluate eyes_fine_seed0",
        "train eyes_finer_seed0",
        "evaluate eyes_finer_seed0",
    ]
    coarse = str(tmp_path / "out" / "eyes_coarse_seed0" / "model.pt")
    stage_1, finer = runs.call("eyes_stage1_seed0", "evaluate"), runs.call("eyes_finer_seed0", "train")
    assert stage_1["coarse_weights"] == finer["coarse_weights"] == coarse
    assert (stage_1["n_select"], stage_1["ckpt_path"]) == (0, None)
    assert (finer["n_select"], finer["max_epochs"], finer["image_size"]) == (4, 2, 32)
    assert runs.call("eyes_coarse_seed0", "train")["max_epochs"] == 3
    assert finer["dataset_dir"] == str(tmp_path / "e")


def test_data_that_a_cell_makes_is_handed_over_as_a_folder_with_its_own_list(
    reproduce: ModuleType, runs: Runs, toy: dict, tmp_path: Path
) -> None:
    plan = json.loads(json.dumps(PLAN))
    plan["columns"]["method"] = {
        "whole": {},
        "made": {"configs": {"make": "make"}, "after": {"coarse_weights": "whole"}, "knobs": {"n_select": 3}},
        "of made": {"weights_of": "whole", "after": {"dataset_dir": "made"}},
    }
    del plan["rows"]["data_set"]["cells"]["not"]
    plan["sets"] = {"methods": ["whole", "of made"]}
    configs = tmp_path / "bundles" / "toy" / "configs"
    (configs / "reproduce.json").write_text(json.dumps(plan))
    (configs / "make.json").write_text(json.dumps({**dict.fromkeys(KNOBS), "ckpt_dir": None}))
    (tmp_path / "list.json").write_text("{}")
    reproduce.reproduce(**toy, figure=3, rows="eyes", datalists=f"eyes={tmp_path / 'list.json'}")
    assert runs.names() == [
        "train eyes_whole_seed0",
        "evaluate eyes_whole_seed0",
        "make eyes_made_seed0",
        "evaluate eyes_ofmade_seed0",
    ]
    out = tmp_path / "out"
    made, scored = runs.call("eyes_made_seed0", "make"), runs.call("eyes_ofmade_seed0", "evaluate")
    assert made["coarse_weights"] == str(out / "eyes_whole_seed0" / "model.pt")
    assert (made["n_select"], made["ckpt_dir"]) == (3, str(out / "eyes_made_seed0"))
    assert scored["dataset_dir"] == str(out / "eyes_made_seed0" / "made")
    assert "datalist" not in scored
    assert scored["ckpt_path"] == str(out / "eyes_whole_seed0" / "model.pt")
    assert runs.call("eyes_whole_seed0", "evaluate")["datalist"] == str(tmp_path / "list.json")


def test_a_set_of_columns_reuses_cells_and_has_tables_of_its_own(
    reproduce: ModuleType, runs: Runs, toy: dict, tmp_path: Path
) -> None:
    reproduce.reproduce(**toy, figure=3, rows="eyes")
    before, first = len(runs.calls), (tmp_path / "out" / "tables.md").read_text()
    reproduce.reproduce(**toy, figure=3, rows="eyes", columns="levers")
    assert runs.names()[before:] == ["evaluate eyes_entropy_seed0"]
    entropy = runs.calls[-1]
    assert (entropy["score"], entropy["n_select"]) == ("entropy", 2)
    assert entropy["ckpt_path"] == str(tmp_path / "out" / "eyes_fine_seed0" / "model.pt")
    assert (tmp_path / "out" / "tables.md").read_text() == first
    assert "| eyes | entropy | 0.6000 | +0.0000 [" in (tmp_path / "out" / "levers" / "tables.md").read_text()


def test_rows_are_those_with_data_and_leave_columns_out_with_all_that_need_them(
    reproduce: ModuleType, runs: Runs, toy: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["clinbundles", "reproduce", "toy", "--dataset_dirs", toy["dataset_dirs"], "--channels=[4,8]"]
    )
    reproduce.reproduce(**toy, figure=3, columns="whole,entropy", cluster="debug")
    assert {name.split()[1] for name in runs.names()} == {
        "eyes_whole_seed0",
        "eyes_coarse_seed0",
        "eyes_fine_seed0",
        "eyes_entropy_seed0",
        "cells_whole_seed0",
    }
    assert "| cells | entropy | – | – | – |" in (tmp_path / "out" / "tables.md").read_text()
    content = read_results(tmp_path / "out" / "results.json")
    cost = {"macs": 100.0, "macs_ratio": 1.0}
    assert [(r["run"], r["column"], r["cost"]) for r in content["results"]] == [
        ("eyes tiny scale", "whole", cost),
        ("eyes tiny scale", "entropy", cost),
        ("cells tiny scale", "whole", cost),
    ]
    assert content["runs"]["eyes tiny scale"]["scale"] == "tiny: max_epochs 2, image_size 32"
    assert content["results"][1]["settings"] == {"n_select": 2, "score": "entropy"}
    command = "clinbundles reproduce toy --dataset_dirs eyes=e,cells=c '--channels=[4,8]'"
    assert content["runs"]["cells tiny scale"]["command"] == command
    assert str(tmp_path) not in json.dumps(content)


@pytest.mark.parametrize("cluster", [None, "debug"])
def test_a_cell_whose_model_failed_says_so_and_the_others_go_on(
    reproduce: ModuleType,
    runs: Runs,
    toy: dict,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    cluster: str | None,
) -> None:
    runs.broken = {"eyes_coarse_seed0"}
    with pytest.raises(SystemExit, match="3 of 4 cells failed: eyes_coarse_seed0, eyes_fine_seed0, eyes_entropy_seed0"):
        reproduce.reproduce(**toy, rows="eyes", columns="whole,fine,entropy", cluster=cluster)
    shown = capsys.readouterr()
    assert "needs the model of eyes_coarse_seed0, which has not finished" in shown.out + shown.err
    runs.broken = set()
    before = len(runs.calls)
    reproduce.reproduce(**toy, rows="eyes", columns="whole,fine,entropy")
    assert runs.names()[before:] == [
        "train eyes_coarse_seed0",
        "train eyes_fine_seed0",
        "evaluate eyes_fine_seed0",
        "evaluate eyes_entropy_seed0",
    ]


def test_a_row_without_data_is_refused(reproduce: ModuleType, runs: Runs, toy: dict, tmp_path: Path) -> None:
    for arguments, message in (
        ({"dataset_dirs": None}, "row 'eyes' has no data: give --dataset_dirs eyes=FOLDER"),
        ({"dataset_dirs": None, "dataset_dir": "all"}, "row 'eyes' has no data"),
        ({"dataset_dirs": "brains=b"}, "'brains=b' is not ROW=PATH"),
        ({"datalists": "eyes"}, "--datalists: 'eyes' is not ROW=PATH"),
    ):
        with pytest.raises(ValueError, match=message):
            reproduce.reproduce(**{**toy, **arguments})
    with pytest.raises(FileNotFoundError, match=r"--datalist .*/fold_0\.json: no such file"):
        reproduce.reproduce(**toy, datalists="eyes=fold_{seed}.json")
    assert not runs.calls
    reproduce.reproduce(**{**toy, "dataset_dirs": None}, rows="cells", dataset_dir=str(tmp_path), columns="whole")
    assert runs.calls[0]["dataset_dir"] == str(tmp_path)


def test_the_command_line_takes_rows_and_columns_with_spaces(reproduce: ModuleType, runs: Runs, toy: dict) -> None:
    del toy["seeds"]
    words = [word for name, value in toy.items() for word in (f"--{name}", str(value))]
    cli.main(["reproduce", *words, "--columns", "whole,stage 1", "--figures", "3", "--seeds", "0"])
    assert "evaluate cells_stage1_seed0" in runs.names()


def test_a_single_column_has_tables_that_compare_nothing(
    reproduce: ModuleType, runs: Runs, toy: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    reproduce.reproduce(**toy, rows="eyes", columns="fine", tables="3a,3b")
    text = (tmp_path / "out" / "tables.md").read_text()
    assert "| data_set | method | Dice | MAC |" in text
    assert "| eyes | fine | 0.6000 | 100 |" in text
    assert "- fine: no comparison, as it is the only column." in text
    capsys.readouterr()
    reproduce.reproduce(**toy, rows="eyes", columns="coarse")
    assert f"it made {tmp_path / 'out' / 'eyes_coarse_seed0' / 'model.pt'}" in capsys.readouterr().out
    with pytest.raises(ValueError, match="cells without fine: left out"):
        reproduce.reproduce(**toy, rows="cells", columns="fine")


def test_a_row_without_the_first_column_is_not_compared(
    reproduce: ModuleType, runs: Runs, toy: dict, tmp_path: Path
) -> None:
    plan = PLAN | {"sets": {"levers": ["fine", "whole"]}}
    (tmp_path / "bundles" / "toy" / "configs" / "reproduce.json").write_text(json.dumps(plan))
    reproduce.reproduce(**toy, tables="3a")
    text = (tmp_path / "out" / "tables.md").read_text()
    assert "- cells, whole: not compared, as fine is not there." in text
    assert "| eyes | whole | 0.6000 | +0.0000 [" in text


PLANS = sorted(ROOT.glob("bundles/*/configs/reproduce.json"))


@pytest.mark.parametrize("path", PLANS, ids=lambda p: p.parents[1].name)
def test_every_shipped_plan_can_be_laid_out_with_knobs_that_its_configs_have(
    reproduce: ModuleType, path: Path, tmp_path: Path
) -> None:
    plan = json.loads(path.read_text())
    for scale in plan["scales"]:
        rows, columns = grid_plan.entries(plan, "rows", scale), grid_plan.entries(plan, "columns", scale)
        defaults = grid_plan.knobs_of_scale(plan, scale)
        jobs = grid_plan.make_jobs(rows, columns, list(columns), ["0"], tmp_path, defaults=defaults, overrides={})
        reproduce.check_knobs(path.parents[1], jobs)
        assert len({job.cell.folder for job in jobs}) == len(jobs) > 1
        for job in jobs:
            assert "evaluate" in job.configs or any(job.cell.folder in other.needs.values() for other in jobs)
    assert not plan.get("sets", {}).keys() & columns.keys()  # --columns takes either
    for names in plan.get("sets", {}).values():
        assert all("evaluate" in columns[name]["configs"] for name in names)
