"""Every bundle's trainings, evaluation and inference take a step on its samples: here, in a process, under torchrun."""

import csv
import json
import os
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


def as_flags(overrides: dict[str, Any]) -> list[str]:
    return [word for k, v in overrides.items() for word in (f"--{k}", str(v))]


def n_samples(bundle: Path, split: str) -> int:
    return len(json.loads((bundle / "samples" / "datalist.json").read_text())[split])


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_train_then_evaluate_then_infer_from_another_folder(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    common = {"bundle_root": str(bundle), "logging_file": False, "ckpt_dir": str(tmp_path / "ckpt")}
    train = small(bundle, "train.json")
    run_bundle(config_file=chain(bundle, "train.json"), output_dir=str(tmp_path / "train"), **common, **train)
    assert {p.name for p in (tmp_path / "ckpt").iterdir()} == {"model.pt", "last.pt"}

    run_bundle(config_file=chain(bundle, "evaluate.json"), output_dir=str(tmp_path / "test"), **common, **train)
    assert len(rows(tmp_path / "test" / "per_image.csv")) == n_samples(bundle, "test")

    inference = small(bundle, "inference.json")
    run_bundle(
        config_file=chain(bundle, "inference.json"), output_dir=str(tmp_path / "inference"), **common, **inference
    )
    assert rows(tmp_path / "inference" / "per_image.csv")


def test_the_command_line_trains_from_the_bundle_folder(bundle: Path, tmp_path: Path) -> None:
    flags = as_flags(small(bundle, "train.json") | {"output_dir": tmp_path, "ckpt_dir": tmp_path})
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/train.json", *flags]
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "model.pt").is_file()


def test_two_processes_train_together(bundle: Path, tmp_path: Path) -> None:
    flags = as_flags(small(bundle, "train.json") | {"output_dir": tmp_path, "ckpt_dir": tmp_path})
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    both = "['configs/train.json','configs/multi_gpu_train.json']"
    done = subprocess.run(
        [*launcher, "-m", "monai.bundle", "run", "--config_file", both, *flags],
        cwd=bundle,
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "model.pt").is_file()


def test_every_other_overlay_trains_a_step(bundle: Path, tmp_path: Path) -> None:
    names = sorted(p.name for p in (bundle / "configs").glob("*.json") if "extends" in load(bundle, p.name))
    names = [name for name in names if name not in ("evaluate.json", "multi_gpu_train.json")]
    assert names
    for name in names:
        run_bundle(
            config_file=chain(bundle, name),
            bundle_root=str(bundle),
            ckpt_dir=str(tmp_path / name),
            output_dir=str(tmp_path / name),
            logging_file=False,
            **small(bundle, name),
        )
        assert (tmp_path / name / "model.pt").is_file()
