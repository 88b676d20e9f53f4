"""Every bundle's trainings, evaluation and inference take a step on its samples: here, in a process, under torchrun."""

import csv
import hashlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clinbundles.scripts.bundle import (
    as_overrides,
    check_options,
    config_files,
    config_names,
    options_for,
    run_configs,
)

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(p.parents[1] for p in ROOT.glob("bundles/*/configs/metadata.json"))

pytestmark = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda p: p.name)


def load(bundle: Path, name: str) -> dict[str, Any]:
    return json.loads((bundle / "configs" / name).read_text())


def small(bundle: Path, name: str) -> dict[str, Any]:
    """The knobs of the smoke scale, as far as a config has them; weights of other trainings left out."""
    plan = load(bundle, "reproduce.json")
    rows = next(iter(plan["rows"].values()))
    sizes = plan["scales"]["smoke"] | (rows["samples"].get("knobs", {}) if "samples" in rows else {})
    sizes |= {"max_epochs": 1, "cache_rate": 0.0, "seed": 1}
    return options_for(bundle, [name], sizes | {"coarse_weights": None, "initial_weights": None})


def contents(bundle: Path) -> dict[Path, int]:
    """Every file of the bundle and when it was last written."""
    return {path: path.stat().st_mtime_ns for path in bundle.rglob("*")}


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def next_run(said: str, bundle: Path) -> tuple[list[str], dict[str, str]]:
    """Configs of the command that a training ends with, and those of its options that name weights."""
    program, verb, name, configs, *words = shlex.split(said.splitlines()[-1].partition("options: ")[2])
    assert (program, verb, name) == ("clinbundles", "run", bundle.name)
    pairs = ((option.removeprefix("--"), text) for option, text in zip(words[::2], words[1::2], strict=True))
    options = {name: text for name, text in pairs if name.endswith(("_path", "_weights")) and text != "null"}
    assert options
    assert all(Path(path).is_file() for path in options.values())
    return configs.split(","), options


def test_a_training_names_the_run_that_follows_and_no_run_touches_the_bundle(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    before = contents(bundle)
    train = small(bundle, "train")
    run_configs(bundle, ["train"], **train)
    evaluate, weights = next_run(capsys.readouterr().out, bundle)
    assert evaluate == ["evaluate"]
    model = Path(weights["ckpt_path"])
    assert model.parents[1] == Path("runs", bundle.name)
    assert {path.name for path in model.parent.iterdir()} == {"model.json", "model.pt", "resume.ckpt"}
    run_configs(bundle, ["train"], **train | {"max_epochs": 2, "resume": True})

    capsys.readouterr()
    run_configs(bundle, evaluate, **train, **weights)
    digits = hashlib.sha256(model.read_bytes()).hexdigest()[:12]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"weights: {model}, sha256 {digits}"
    items = json.loads((bundle / "samples" / "datalist.json").read_text())["test"]
    table = rows(Path("runs", bundle.name, "evaluation", "per_image.csv"))
    assert len(table) == len(items)
    counts = f"{len(items)} in, {len(items)} used, 0 left out."
    assert [line for line in said if line.endswith(counts)] == [f"test split of the bundle's own samples: {counts}"]
    # What intervals resample: the groups that the split keeps together.
    assert len({row["patient"] for row in table}) == len({item["group"] for item in items})
    metrics = json.loads(Path("runs", bundle.name, "evaluation", "metrics.json").read_text())
    assert metrics["groups"] == len({item["group"] for item in items})
    assert (metrics["images"], metrics["failures"]) == (len(items), 0)
    assert {"unit", "notes"} <= metrics.keys()
    assert metrics["scores"]
    for name, score in metrics["scores"].items():
        assert name.startswith("val_")
        assert score.keys() - {"images"} == {"value", "low", "high"}
    assert list(Path("runs", bundle.name, "evaluation").rglob("*.png"))
    assert {row["weights"] for row in table} == {
        f"sha256 {digits}: their card does not say what these weights are for."
    }

    run_configs(bundle, ["inference"])
    shipped = bundle / "models" / "model.pt"
    digits = hashlib.sha256(shipped.read_bytes()).hexdigest()[:12]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"weights: {shipped}, sha256 {digits}"
    assert [line for line in said if line.startswith("the bundle's own samples: ")]
    warning = load(bundle, "../models/model.json")["warning"]
    table = rows(Path("runs", bundle.name, "inference", "per_image.csv"))
    assert {row["weights"] for row in table} == {f"sha256 {digits}: {warning}"}
    assert contents(bundle) == before
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_every_other_overlay_trains_a_step_in_a_folder_of_its_own(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    before = contents(bundle)
    folders: list[str] = []
    for name in (name for name in config_names(bundle) if name.startswith("train_") or name == "paper"):
        run_configs(bundle, [name], **small(bundle, name))
        names, options = next_run(capsys.readouterr().out, bundle)
        check_options(bundle, names, options)
        folders.append(next(iter(options.values())))
    assert folders
    assert len(folders) == len(set(folders))
    assert contents(bundle) == before


def test_two_processes_train_together(bundle: Path, tmp_path: Path) -> None:
    flags = [word for knob, value in as_overrides(small(bundle, "train")).items() for word in (f"--{knob}", str(value))]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    both = str([str(file) for file in config_files(bundle, ["multi_gpu_train"])])
    done = subprocess.run(
        [*launcher, "-m", "monai.bundle", "run", "--config_file", both, "--bundle_root", str(bundle), *flags],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("next")]
    assert len(lines) == 1
    assert (tmp_path / lines[0].split()[-1]).is_file()


def test_the_command_line_trains_from_the_bundle_folder(bundle: Path, tmp_path: Path) -> None:
    values = as_overrides(small(bundle, "train")) | {"runs_dir": tmp_path}
    flags = [word for knob, value in values.items() for word in (f"--{knob}", str(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/train.json", *flags]
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert Path(done.stdout.splitlines()[-1].split()[-1]).is_file()
