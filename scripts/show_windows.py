"""Draw what the two stages do to one image: stage 1, the windows looked at again, and the result.

python scripts/show_windows.py bundles/two_stage_segmentation/samples/images/Image_02L.jpg \
    --label bundles/two_stage_segmentation/samples/masks/Image_02L_1stHO.png --output windows.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fire
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from monai.bundle import ConfigParser
from PIL import Image

from clinbundles.engines.outputs.masks import LABEL_COLOR, PREDICTION_COLOR, draw_contour
from clinbundles.nets.weights import load_weights
from clinbundles.transforms.readers.images import BinaryMaskReader

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "two_stage_segmentation"


def show_windows(
    image: str,
    *,
    label: str | None = None,
    ckpt_path: str | None = None,
    output: str = "windows.png",
    **knobs: Any,
) -> None:
    """Write the picture of ``image``; ``label`` is its mask file, ``knobs`` are top-level values of inference.json."""
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs" / "inference.json"))
    if unknown := [name for name in knobs if name not in parser]:
        raise ValueError(f"--{unknown[0]} is no top-level value of inference.json.")
    parser.update({"bundle_root": str(BUNDLE), **knobs})
    network = parser.get_parsed_content("network").eval()
    weights = ckpt_path or parser.get_parsed_content("ckpt_path")
    load_weights(network, weights)
    pixels = parser.get_parsed_content("preprocessing")({"image": image})["image"][None].as_tensor()
    pixels = pixels.to(next(network.parameters()).device)
    with torch.inference_mode():
        stage_1 = network.stage_1(pixels)[0, 0].cpu().numpy()
        result = (network(pixels)[0, 0] > 0).cpu().numpy()
        corners, sides = network.chosen_corners(pixels)

    shown = (pixels[0].cpu().movedim(0, -1).expand(-1, -1, 3).numpy() * 255).astype(np.uint8)
    drawn = draw_contour(shown, result, PREDICTION_COLOR)
    title = "result"
    if label is not None:
        truth = Image.fromarray(BinaryMaskReader().read(label)).resize(result.shape[::-1], Image.Resampling.NEAREST)
        drawn = draw_contour(drawn, np.asarray(truth), LABEL_COLOR)
        title += " (cyan) and ground truth (yellow)"
    figure, axes = plt.subplots(1, 3, figsize=(15, 5.3))
    for axis, content, text in zip(
        axes,
        (shown, stage_1, drawn),
        (f"{len(corners)} windows of {sides[1]} x {sides[0]} refined", "probability of stage 1", title),
        strict=True,
    ):
        axis.imshow(content, cmap="gray", vmin=0, vmax=None if content.ndim == 3 else 1)
        axis.set_title(text)
        axis.axis("off")
        for _, top, left in corners.tolist() if axis is not axes[2] else ():
            frame = plt.Rectangle((left, top), sides[1] - 1, sides[0] - 1, fill=False, color="orange", linewidth=2)
            axis.add_patch(frame)
    figure.tight_layout()
    figure.savefig(output, dpi=80)
    plt.close(figure)
    print(output)


if __name__ == "__main__":
    fire.Fire(show_windows)
