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
from monai.bundle import run as run_bundle

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(p.parents[1] for p in ROOT.glob("bundles/*/configs/metadata.json"))

pytestmark = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda p: p.name)


def load(bundle: Path, name: str) -> dict[str, Any]:
    return json.loads((bundle / "configs" / name).read_text())


def chain(bundle: Path, name: str) -> list[str]:
    """Paths of a config and, before it, of what it extends."""
    below = [file for other in load(bundle, name).get("extends", []) for file in chain(bundle, other)]
    return list(dict.fromkeys([*below, str(bundle / "configs" / name)]))


def small(bundle: Path, *names: str) -> dict[str, Any]:
    """The knobs of the smoke scale, as far as these configs have them; weights of other trainings left out."""
    plan = load(bundle, "reproduce.json")
    rows = next(iter(plan["rows"].values()))
    sizes = plan["scales"]["smoke"] | (rows["samples"].get("knobs", {}) if "samples" in rows else {})
    sizes |= {"max_epochs": 1, "cache_rate": 0.0, "seed": 1}
    known = {key for name in names for file in chain(bundle, name) for key in load(bundle, Path(file).name)}
    other_weights = {key: None for key in ("coarse_weights", "initial_weights") if key in known}
    # MONAI drops an override that is None.
    return {k: "$None" if v is None else v for k, v in (sizes | other_weights).items() if k in known}


def contents(bundle: Path) -> dict[Path, int]:
    """Every file of the bundle and when it was last written."""
    return {path: path.stat().st_mtime_ns for path in bundle.rglob("*")}


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def next_run(said: str, bundle: Path) -> tuple[list[str], dict[str, str]]:
    """Config files and options of the command that a training ends with."""
    program, verb, name, configs, option, path = shlex.split(said.splitlines()[-1].partition("options: ")[2])
    assert (program, verb, name) == ("clinbundles", "run", bundle.name)
    assert Path(path).is_file()
    files = [file for config in configs.split(",") for file in chain(bundle, f"{config}.json")]
    return list(dict.fromkeys(files)), {option.removeprefix("--"): path}


def test_a_training_names_the_run_that_follows_and_no_run_touches_the_bundle(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    before = contents(bundle)
    common = {"bundle_root": str(bundle), "logging_file": False}
    train = small(bundle, "train.json")
    run_bundle(config_file=chain(bundle, "train.json"), **common, **train)
    evaluate, weights = next_run(capsys.readouterr().out, bundle)
    assert evaluate == chain(bundle, "evaluate.json")
    model = Path(weights["ckpt_path"])
    assert model.parents[1] == Path("runs", bundle.name)
    assert {path.name for path in model.parent.iterdir()} == {"model.pt", "resume.ckpt"}
    run_bundle(config_file=chain(bundle, "train.json"), **common, **train | {"max_epochs": 2, "resume": True})

    capsys.readouterr()
    run_bundle(config_file=evaluate, **common, **train, **weights)
    digits = hashlib.sha256(model.read_bytes()).hexdigest()[:12]
    assert capsys.readouterr().out.splitlines()[0] == f"weights: {model}, sha256 {digits}"
    datalist = json.loads((bundle / "samples" / "datalist.json").read_text())
    assert len(rows(Path("runs", bundle.name, "evaluation", "per_image.csv"))) == len(datalist["test"])

    run_bundle(config_file=chain(bundle, "inference.json"), **common)
    shipped = bundle / "models" / "model.pt"
    digits = hashlib.sha256(shipped.read_bytes()).hexdigest()[:12]
    assert capsys.readouterr().out.splitlines()[0] == f"weights: {shipped}, sha256 {digits}"
    assert rows(Path("runs", bundle.name, "inference", "per_image.csv"))
    assert contents(bundle) == before
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_every_other_overlay_trains_a_step_in_a_folder_of_its_own(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    before = contents(bundle)
    names = [*sorted(p.name for p in (bundle / "configs").glob("train_*.json")), "paper.json"]
    folders: list[str] = []
    for name in (name for name in names if (bundle / "configs" / name).is_file()):
        run_bundle(config_file=chain(bundle, name), bundle_root=str(bundle), logging_file=False, **small(bundle, name))
        files, options = next_run(capsys.readouterr().out, bundle)
        known = {key for file in files for key in json.loads(Path(file).read_text())}
        assert options.keys() <= known, name
        folders += options.values()
    assert folders
    assert len(folders) == len(set(folders))
    assert contents(bundle) == before


def test_two_processes_train_together(bundle: Path, tmp_path: Path) -> None:
    flags = [word for knob, value in small(bundle, "train.json").items() for word in (f"--{knob}", str(value))]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    both = str(chain(bundle, "multi_gpu_train.json"))
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
    values = small(bundle, "train.json") | {"runs_dir": tmp_path}
    flags = [word for knob, value in values.items() for word in (f"--{knob}", str(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/train.json", *flags]
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert Path(done.stdout.splitlines()[-1].split()[-1]).is_file()
