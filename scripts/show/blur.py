"""What gaze does to a training image: fixations, attention map and the blurred image of each arm."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from monai.transforms import Resize

from clinbundles.transforms.blur import AttentionGaussianBlur
from clinbundles.transforms.gaze.attention_map import GazeToAttentionMap, as_observers
from clinbundles.transforms.readers.images import RGBImageReader

from .drawing import save


def show_blur(
    datalist: str,
    *,
    item: int = 0,
    dataset_dir: str | None = None,
    arm: str | None = None,
    image_size: int | None = None,
    output: str = "blur.png",
    sigma_base: float = 1.0,
    weight: float | None = None,
    gaze_sigma_px: float = 35.0,
) -> None:
    """Draw what gaze does to a training image: fixations, attention map and both blurs, or one arm as the paper does.

    Args:
        datalist: JSON datalist with fixations.
        item: number of the image in the training split, from 0.
        dataset_dir: folder that its paths start from; the datalist's own if not given.
        arm: positive or reverse draws the image, that blur and the attention map (the paper's figures 3 and 4); both
            blurs beside fixations and map if not given.
        image_size: side in px that the image is resized to before it is blurred, as for the paper's training (512); its
            own size if not given.
        output: picture to write.
        sigma_base: the σ in px that the weight is added to or taken from; without an arm, that of the reverse blur is
            the weight.
        weight: w; 0.3 with an arm, as in training, and 2 without one, to be seen.
        gaze_sigma_px: width of a fixation in px of the original image.
    """
    if arm not in (None, "positive", "reverse"):
        raise ValueError(f"arm is {arm!r}, expected positive or reverse.")
    weight = weight if weight is not None else 2.0 if arm is None else 0.3
    items = json.loads(Path(datalist).read_text())["training"]
    if not 0 <= item < len(items):
        raise ValueError(f"{datalist}: item is {item}, expected 0 to {len(items) - 1}.")
    chosen = items[item]
    if not chosen.get("fixations"):
        raise ValueError(f"{datalist}: training item {item} has no fixations.")
    pixels = np.array(RGBImageReader().read(Path(dataset_dir or Path(datalist).parent) / chosen["image"]))
    original = chosen.get("original_size") or pixels.shape[:2]
    image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    if image_size is not None:
        resized = Resize((image_size, image_size), mode="bilinear", anti_aliasing=True)(image)
        image = torch.from_numpy(np.asarray(resized))
    height, width = image.shape[1:]
    attention = GazeToAttentionMap(sigma_px=gaze_sigma_px)(chosen["fixations"], (height, width), original)

    def blurred(mode: str, base: float) -> tuple[torch.Tensor, str]:
        sign = "+" if mode == "positive" else "−"
        result = AttentionGaussianBlur(base, weight=weight, mode=mode)(image, attention)
        return result, f"{mode}: σ = {base:g} {sign} {weight:g} (1 − p)"

    plain, map_of_p = (image, f"{width} × {height} px"), (attention, "attention p")
    if arm is not None:
        panels = [plain, blurred(arm, sigma_base), map_of_p]
    else:
        source = chosen.get("gaze_source", "source unknown").split(":")[0]
        panels = [(image, f"fixations ({source})"), map_of_p]
        panels += [blurred("positive", sigma_base), blurred("reverse", weight)]
    observers = as_observers(chosen["fixations"])
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3.5 * len(panels), 3.5 * height / width + 0.8), layout="constrained"
    )
    circles = ", the larger the circle the longer" if arm is None else ""
    figure.suptitle(
        f"{Path(chosen['image']).name}: {sum(map(len, observers))} fixations of {len(observers)} "
        f"observer{'s'[: len(observers) - 1]}{circles}; p has a width of {gaze_sigma_px:g} px"
    )
    for axis, (panel, title) in zip(axes, panels, strict=True):
        axis.imshow(panel.permute(1, 2, 0).clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1)
        axis.set_title(title)
        axis.axis("off")
    if arm is None:
        for x, y, duration_ms in np.concatenate(observers):
            axes[0].plot(x * width, y * height, "o", mec="cyan", mfc="none", ms=duration_ms**0.5 / 3)
    save(figure, output)
