"""A first look: the gaze bundle's weights on the frames it ships, then a small training, evaluated and tracked."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from clinbundles.engines.outputs.per_image import read_per_image
from clinbundles.scripts.bundle import find_bundle

BUNDLE = "gaze_polyp_segmentation"


def demo(*, max_epochs: int = 60, output_dir: str = "runs/demo") -> None:
    """Segment the shipped frames, train on them for ``max_epochs`` epochs, evaluate on their test split.

    Args:
        max_epochs: of the training.
        output_dir: folder for all that comes out.
    """
    find_bundle(BUNDLE)
    output = Path(output_dir)
    _run("inference", "--output_dir", str(output / "first_look"))
    print(f"\nFirst pictures, by the shipped weights: {output / 'first_look'}\n", flush=True)

    small = ["--image_size", "160", "--batch_size", "4", "--cache_rate", "1.0", "--tracking"]
    schedule = ["--max_epochs", str(max_epochs), "--learning_rate", "0.001"]
    _run("train", *small, *schedule, "--ckpt_dir", str(output / "train"), "--replace", "true")
    weights = ["--ckpt_path", str(output / "train" / "model.pt"), "--output_dir", str(output / "test")]
    _run("evaluate", *small, *weights)

    table, _ = read_per_image(output / "test" / "per_image.csv")
    metrics = [c for c in table.columns if c.startswith("val_mean_")]
    print("\nTest frames (simulated gaze in training, a handful of frames: an example, not a result)\n")
    print(table[["image", *metrics]].to_string(index=False))
    print("\nmean over images")
    print(table[metrics].mean().to_string(float_format="%.4f"))
    print("\nCompare runs in the browser: make ui   (then open the address that it gives)")
    print(f"Pictures of the trained network: {output / 'test' / 'overlays'}")


def _run(config: str, *options: str) -> None:
    words = ["run", BUNDLE, config, *options]
    print(f"clinbundles {shlex.join(words)}\n", flush=True)
    if code := subprocess.run([sys.executable, "-m", "clinbundles.scripts.cli", *words], check=False).returncode:
        sys.exit(code)
