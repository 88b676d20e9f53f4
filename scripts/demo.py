"""Train, evaluate and track the gaze bundle on the frames the project ships, in a few minutes on a CPU."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from clinbundles.engines.outputs.per_image import read_per_image

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "bundles" / "gaze_polyp_segmentation"


def demo(*, max_epochs: int = 60, output_dir: str = "runs/demo") -> None:
    """Train on the shipped frames for ``max_epochs`` epochs, evaluate on their test split, print what came out."""
    output = (ROOT / output_dir).resolve()
    common = ["--bundle_root", ".", "--dataset_dir", "samples", "--image_size", "160"]
    common += ["--tracking", "../../mlflow/tracking.json", "--cache_rate", "1.0"]
    schedule = ["--max_epochs", str(max_epochs), "--batch_size", "4", "--learning_rate", "0.001"]
    _run(["--config_file", "configs/train.json", *common, *schedule, "--ckpt_dir", str(output)])
    both = "['configs/train.json','configs/evaluate.json']"
    weights = ["--ckpt_path", str(output / "model.pt"), "--output_dir", str(output / "test")]
    _run(["--config_file", both, *common, *schedule, *weights])

    table, _ = read_per_image(output / "test" / "per_image.csv")
    metrics = [c for c in table.columns if c.startswith("val_mean_")]
    print("\nTest frames (simulated gaze in training, a handful of frames: an example, not a result)\n")
    print(table[["image", *metrics]].to_string(index=False))
    print("\nmean over images")
    print(table[metrics].mean().to_string(float_format="%.4f"))
    print(f"\nPictures (prediction cyan, ground truth yellow): {output / 'test' / 'overlays'}")
    print("Compare runs in the browser: make ui   (then open http://127.0.0.1:5000)")


def _run(arguments: list[str]) -> None:
    command = ["-m", "monai.bundle", "run", *arguments]
    print(f"\n(cd {BUNDLE.relative_to(ROOT)} && python {shlex.join(command)})\n", flush=True)
    subprocess.run([sys.executable, *command], cwd=BUNDLE, check=True)
