"""What two stages do to an image: what stage 1 finds, the windows that stage 2 looks at again, and the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt

from clinbundles.engines.outputs.masks import stretched
from clinbundles.nets.weights import load_stages, load_weights
from clinbundles.scripts.bundle import find_bundle, open_configs, options_for
from clinbundles.transforms.readers.images import BinaryMaskReader

from .drawing import draw_outcomes, save


def show_windows(
    image: str,
    *,
    label: str | None = None,
    ckpt_path: str | None = None,
    cell: str | None = None,
    output: str = "windows.png",
    **knobs: Any,
) -> None:
    """Draw what the two stages do to ``image``: stage 1, the windows that stage 2 looks at again, and the result.

    Figures 4 to 6 of the two-stage paper, of a cell of the grid of ``clinbundles reproduce two_stage_segmentation``.

    Args:
        image: image file.
        label: its mask file; with it the result is drawn as hits, misses and false alarms, with its Dice, beside it.
        ckpt_path: weights; the bundle's own if not given.
        cell: folder of a finished cell of that grid, whose weights and options are taken.
        output: picture to write.
        knobs: top-level values of inference.json.
    """
    bundle = find_bundle("two_stage_segmentation")
    coarse_weights = None
    if cell is not None:
        if ckpt_path is not None:
            raise ValueError("--cell and --ckpt_path: give one of them.")
        options, ckpt_path, coarse_weights = _read_cell(Path(cell))
        knobs = options_for(bundle, ["inference"], options) | knobs
    parser = open_configs(bundle, ["inference"], **knobs)
    network = parser.get_parsed_content("network").eval()
    load_weights(network, ckpt_path or parser.get_parsed_content("ckpt_path"))
    load_stages(network, coarse_weights=coarse_weights, initial_weights=None)
    pixels = parser.get_parsed_content("preprocessing")({"image": image})["image"][None].as_tensor()
    pixels = pixels.to(next(network.parameters()).device)
    with torch.inference_mode():
        stage_1 = network.stage_1(pixels)[0, 0].cpu().numpy()
        result = (network(pixels)[0, 0] > 0).cpu().numpy()
        corners, sides = network.corners(pixels)
    shown = (pixels[0].cpu().movedim(0, -1).expand(-1, -1, 3).numpy() * 255).astype(np.uint8)
    truth = None if label is None else stretched(BinaryMaskReader().read(label), result.shape)

    figure, axes = plt.subplots(1, 3 if truth is None else 4, figsize=(15 if truth is None else 20, 5.6))
    axes[0].imshow(shown)
    axes[0].set_title(f"{Path(image).name}: {len(corners)} windows of {sides[1]} x {sides[0]} px refined")
    axes[1].imshow(stage_1, cmap="gray", vmin=0, vmax=1)
    axes[1].set_title("probability of stage 1")
    for axis in axes[:2]:
        for _, top, left in corners.tolist():
            frame = plt.Rectangle((left, top), sides[1] - 1, sides[0] - 1, fill=False, color="orange", linewidth=2)
            axis.add_patch(frame)
    draw_outcomes(axes[2], shown, result, truth, name="both stages")
    if truth is not None:
        axes[3].imshow(truth, cmap="gray", vmin=0, vmax=1)
        axes[3].set_title("label")
    for axis in axes:
        axis.axis("off")
    figure.tight_layout()
    save(figure, output)


def _read_cell(cell: Path) -> tuple[dict[str, Any], str, str | None]:
    """Options of a finished cell, the file of its two stages, and that of a stage 1 that took the place of theirs."""
    result = cell / "result.json"
    if not result.is_file():
        raise FileNotFoundError(f"{result}: no such file; {cell} is no finished cell of clinbundles reproduce.")
    knobs = json.loads(result.read_text(encoding="utf-8"))["knobs"]
    ckpt_path, coarse_weights = knobs.pop("ckpt_path", None), knobs.pop("coarse_weights", None)
    if coarse_weights is None or knobs.get("n_select") == 0:
        raise ValueError(f"{cell}: was run with one stage; take a cell with two, such as that of N_p = 4.")
    return knobs, ckpt_path or str(cell / "model.pt"), coarse_weights if ckpt_path else None
