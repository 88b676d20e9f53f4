"""Draw what gaze does to one training image: fixations, attention map, positive and reverse blur.

python scripts/show.py --datalist bundles/gaze_polyp_segmentation/samples/datalist.json --item 5 --output blur.png
"""

from __future__ import annotations

import json
from pathlib import Path

import fire
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from clinbundles.transforms.blur import AttentionGaussianBlur
from clinbundles.transforms.gaze.attention_map import GazeToAttentionMap, as_observers
from clinbundles.transforms.readers.images import RGBImageReader


def show_blur(
    datalist: str,
    *,
    item: int = 0,
    dataset_dir: str | None = None,
    output: str = "blur.png",
    sigma_base: float = 1.0,
    weight: float = 2.0,
    gaze_sigma_px: float = 35.0,
) -> None:
    """Write the picture of training item number ``item``; ``weight`` is larger than in training (0.3), to be seen."""
    items = json.loads(Path(datalist).read_text())["training"]
    if not 0 <= item < len(items):
        raise ValueError(f"{datalist}: item is {item}, expected 0 to {len(items) - 1}.")
    chosen = items[item]
    if not chosen.get("fixations"):
        raise ValueError(f"{datalist}: training item {item} has no fixations.")
    pixels = np.asarray(RGBImageReader().read(Path(dataset_dir or Path(datalist).parent) / chosen["image"]))
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
    height, width = image.shape[1:]
    attention = GazeToAttentionMap(sigma_px=gaze_sigma_px)(chosen["fixations"], (height, width))
    positive = AttentionGaussianBlur(sigma_base, weight=weight)(image, attention)
    reverse = AttentionGaussianBlur(weight, weight=weight, mode="reverse")(image, attention)

    figure, axes = plt.subplots(1, 4, figsize=(14, 14 / 4 * height / width + 0.4))
    axes[0].imshow(pixels)
    for x, y, duration_ms in np.concatenate(as_observers(chosen["fixations"])):
        axes[0].plot(x * width, y * height, "o", mec="cyan", mfc="none", ms=duration_ms**0.5 / 3)
    axes[0].set_title(f"fixations ({chosen.get('gaze_source', 'source unknown').split(':')[0]})")
    axes[1].imshow(np.asarray(attention[0]), cmap="gray", vmin=0, vmax=1)
    axes[1].set_title("attention p")
    axes[2].imshow(np.asarray(positive.permute(1, 2, 0).clamp(0, 1)))
    axes[2].set_title(f"positive: σ = {sigma_base:g} + {weight:g} (1 − p)")
    axes[3].imshow(np.asarray(reverse.permute(1, 2, 0).clamp(0, 1)))
    axes[3].set_title(f"reverse: σ = {weight:g} − {weight:g} (1 − p)")
    for axis in axes:
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(output, dpi=80)
    print(output)


if __name__ == "__main__":
    fire.Fire(show_blur)
