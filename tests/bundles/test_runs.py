"""Bundles with one training (train.json): it takes a step on the samples, here, in its own process, under torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import run as run_bundle

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(p.parents[1] for p in ROOT.glob("bundles/*/configs/train.json"))
SMALL = {
    "max_epochs": 1,
    "image_size": 64,
    "batch_size": 2,
    "unet_channels": [8, 8, 8, 8, 8, 8],
    "cache_rate": 0.0,
    "seed": 1,
}

pytestmark = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda p: p.name)


def small(bundle: Path, *names: str) -> dict[str, Any]:
    known: set[str] = set()
    for name in names:
        known |= json.loads((bundle / "configs" / name).read_text()).keys()
    return {k: v for k, v in SMALL.items() if k in known}


def files(bundle: Path, *names: str) -> list[str]:
    return [str(bundle / "configs" / name) for name in names]


def as_flags(overrides: dict[str, Any]) -> list[str]:
    return [word for k, v in overrides.items() for word in (f"--{k}", str(v))]


def test_train_then_evaluate_then_infer_from_another_folder(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    common = {"bundle_root": str(bundle), "ckpt_dir": str(tmp_path / "ckpt"), "logging_file": False}
    train = small(bundle, "train.json")
    run_bundle(config_file=files(bundle, "train.json"), output_dir=str(tmp_path / "train"), **common, **train)
    assert {p.name for p in (tmp_path / "ckpt").iterdir()} == {"model.pt", "last.pt"}

    run_bundle(
        config_file=files(bundle, "train.json", "evaluate.json"), output_dir=str(tmp_path / "test"), **common, **train
    )
    table = (tmp_path / "test" / "per_image.csv").read_text().splitlines()
    datalist = json.loads((bundle / "samples" / "datalist.json").read_text())
    assert len(table) == 1 + len(datalist["test"])
    assert "val_mean_dice" in table[0]

    run_bundle(
        config_file=files(bundle, "inference.json"),
        output_dir=str(tmp_path / "infer"),
        **common,
        **small(bundle, "inference.json"),
    )
    assert (
        len(list((tmp_path / "infer" / "masks").glob("*.png")))
        == len(list((tmp_path / "infer" / "overlays").glob("*.png")))
        > 0
    )


def test_the_command_line_trains_from_the_bundle_folder(bundle: Path, tmp_path: Path) -> None:
    flags = as_flags(small(bundle, "train.json") | {"output_dir": tmp_path, "ckpt_dir": tmp_path})
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/train.json", *flags]
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "model.pt").is_file()


def test_two_processes_train_together(bundle: Path, tmp_path: Path) -> None:
    flags = as_flags(small(bundle, "train.json") | {"output_dir": tmp_path, "ckpt_dir": tmp_path})
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "monai.bundle",
        "run",
    ]
    both = "['configs/train.json','configs/multi_gpu_train.json']"
    done = subprocess.run(
        [*command, "--config_file", both, *flags],
        cwd=bundle,
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "model.pt").is_file()


def test_every_other_overlay_trains_a_step(bundle: Path, tmp_path: Path) -> None:
    overlays = []
    for path in sorted((bundle / "configs").glob("*.json")):
        says_so = "overlay on train.json" in json.loads(path.read_text()).get("_desc_", "").lower()
        if says_so and path.name not in ("evaluate.json", "multi_gpu_train.json"):
            overlays.append(path.name)
    for name in overlays:
        sized_by_overlay = json.loads((bundle / "configs" / name).read_text()).keys() - {"image_size"}
        sizes = {k: v for k, v in small(bundle, "train.json").items() if k not in sized_by_overlay} | {"batch_size": 16}
        run_bundle(
            config_file=files(bundle, "train.json", name),
            bundle_root=str(bundle),
            ckpt_dir=str(tmp_path / name),
            output_dir=str(tmp_path / name),
            logging_file=False,
            **sizes,
        )
        assert (tmp_path / name / "model.pt").is_file()
