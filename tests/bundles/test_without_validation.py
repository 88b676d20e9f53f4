"""Every bundle's training on a datalist without validation images: it keeps its last weights, or says why it cannot."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from PIL import Image

from clinbundles.scripts import cli
from clinbundles.scripts.bundle import as_overrides, config_files, options_for, run_configs

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(p.parents[1] for p in ROOT.glob("bundles/*/configs/metadata.json"))
# The papers of the others have validation images, or decide by them when a training ends and which epoch is kept.
WITHOUT = {"two_stage_segmentation", "ct_datasetgan"}
SAID = "no validation images: the last epoch's weights are kept"
TWO_STAGE = ROOT / "bundles" / "two_stage_segmentation"
# Windows of 32 on images of 256, of which stage 1 sees an eighth.
SMALL: dict[str, Any] = {"image_size": 256, "channels": [4, 4, 4, 4, 4], "max_epochs": 1, "cache_rate": 0.0}


def smoke(bundle: Path, name: str) -> dict[str, Any]:
    plan = json.loads((bundle / "configs" / "reproduce.json").read_text())
    rows = next(iter(plan["rows"].values()))
    knobs = plan["scales"]["smoke"] | (rows["samples"].get("knobs", {}) if "samples" in rows else {})
    return options_for(bundle, [name], knobs | {"max_epochs": 2, "cache_rate": 0.0, "initial_weights": None})


@pytest.fixture
def datalist(bundle: Path, tmp_path: Path) -> Path:
    """That of the bundle's samples without its validation images."""
    content = json.loads((bundle / "samples" / "datalist.json").read_text())
    assert content.pop("validation")
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps(content))
    return path


def weights_are_the_last(folder: Path) -> bool:
    model = torch.load(folder / "model.pt", weights_only=True)
    last = torch.load(folder / "resume.ckpt", weights_only=True)["network"]
    return model.keys() == last.keys() and all(torch.equal(last[name], value) for name, value in model.items())


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda p: p.name)
def test_a_training_keeps_its_last_weights_or_is_refused_before_anything_is_written(
    bundle: Path, datalist: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    name = "train_coarse" if bundle == TWO_STAGE else "train"  # a stage 1 needs no other weights
    options = smoke(bundle, name) | {"datalist": str(datalist), "ckpt_dir": str(tmp_path / "out")}
    if bundle.name in WITHOUT:
        run_configs(bundle, [name], **options)
        assert SAID in capsys.readouterr().out.splitlines()
        assert weights_are_the_last(tmp_path / "out")
        return
    with pytest.raises(RuntimeError) as caught:
        run_configs(bundle, [name], **options)
    assert f"{datalist}: there are no validation images (split 'validation'), and " in cli.sentence_of(caught.value)
    assert list(tmp_path.iterdir()) == [datalist]


@pytest.mark.parametrize("bundle", [b for b in BUNDLES if b.name in WITHOUT], ids=lambda p: p.name)
def test_two_processes_train_without_validation_images(bundle: Path, datalist: Path, tmp_path: Path) -> None:
    overlays = ["train_coarse", "multi_gpu_train"] if bundle == TWO_STAGE else ["multi_gpu_train"]
    values = smoke(bundle, overlays[0]) | {"max_epochs": 1, "datalist": str(datalist), "bundle_root": str(bundle)}
    flags = [f"--{knob}={value}" for knob, value in as_overrides(values).items()]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    files = str([str(file) for file in config_files(bundle, overlays)])
    done = subprocess.run(
        [*launcher, "-m", "monai.bundle", "run", "--config_file", files, *flags],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(SAID) == 1  # processes may write to one line
    assert len(list(tmp_path.rglob("model.pt"))) == 1


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda p: p.name)
def test_an_evaluation_needs_test_images_alone(bundle: Path, datalist: Path, tmp_path: Path) -> None:
    run_configs(bundle, ["evaluate"], datalist=str(datalist), output_dir=str(tmp_path / "out"))
    table = list(csv.DictReader((tmp_path / "out" / "per_image.csv").read_text().splitlines()))
    assert len(table) == len(json.loads(datalist.read_text())["test"])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Ten discs in noise, divided as the paper of the two stages does: 70, 0 and 30 of a hundred."""
    folder, generator = tmp_path_factory.mktemp("discs"), np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for k in range(10):
        middle = generator.integers(15, 50, 2)
        disc = (y - middle[0]) ** 2 + (x - middle[1]) ** 2 < 120
        pixels = generator.integers(0, 80, (64, 64, 3)) + 150 * disc[..., None]
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{k}.png")
        Image.fromarray((255 * disc).astype(np.uint8)).save(folder / "masks" / f"{k}.png")
    places = {"dataset_dir": str(folder), "datalist": str(folder / "datalist.json")}
    about = ["--label", "disc", "--modality", "drawn", "--ratios", "70,0,30"]
    cli.main(["prepare", "folder", *places.values(), *about])
    assert not json.loads((folder / "datalist.json").read_text())["numValidation"]
    return places


@pytest.mark.parametrize("recipe", [[], ["paper"]], ids=["train", "paper"])
def test_the_papers_split_trains_both_stages_and_scores_them_on_its_test_images(
    prepared: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture, recipe: list[str]
) -> None:
    coarse, both = tmp_path / "coarse", tmp_path / "both"
    stage_1 = {"coarse_weights": str(coarse / "model.pt")}
    run_configs(TWO_STAGE, ["train_coarse", *recipe], **prepared, **SMALL, ckpt_dir=str(coarse))
    run_configs(TWO_STAGE, recipe or ["train"], **prepared, **SMALL, **stage_1, ckpt_dir=str(both))
    assert capsys.readouterr().out.splitlines().count(SAID) == 2
    assert weights_are_the_last(coarse)
    assert weights_are_the_last(both)
    scored = {"ckpt_path": str(both / "model.pt"), "output_dir": str(tmp_path / "out")}
    run_configs(TWO_STAGE, [*recipe, "evaluate"], **prepared, **options_for(TWO_STAGE, ["evaluate"], SMALL), **scored)
    assert len(list(csv.DictReader((tmp_path / "out" / "per_image.csv").read_text().splitlines()))) == 3


def test_the_grid_of_the_two_stages_runs_through_on_the_papers_split(prepared: dict[str, str], tmp_path: Path) -> None:
    places = [f"--{name}s=BOWL2018={path}" for name, path in prepared.items()]
    grid = ["--scale", "smoke", "--seeds", "0", "--columns", "baseline,stage 1,N_p = 2", "--output_dir", str(tmp_path)]
    cli.main(["reproduce", "two_stage_segmentation", *places, *grid, "--tracking_uri", f"sqlite:///{tmp_path}/runs.db"])
    results = json.loads((tmp_path / "results.json").read_text())
    assert {result["column"] for result in results["results"]} == {"baseline", "stage 1", "N_p = 2"}
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs.db")
    number = client.get_experiment_by_name("two_stage_segmentation").experiment_id
    tracked = client.search_runs([number])
    assert {run.data.tags["kind"] for run in tracked} == {"grid", "training", "evaluation"}
    assert {run.data.tags["scale"] for run in tracked} == {"smoke"}
    assert all(run.data.tags["mlflow.source.name"] and run.data.tags["mlflow.note.content"] for run in tracked)
    assert {run["split"].partition(" images")[0] for run in results["runs"].values()} == {"7/0/3"}
