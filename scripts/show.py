"""Pictures that explain a method: what gaze does to an image, what two stages do, where masks are right
and wrong, what speaks for a class.

clinbundles show blur --datalist bundles/gaze_polyp_segmentation/samples/datalist.json --item 5 --output blur.png
clinbundles show windows bundles/two_stage_segmentation/samples/images/Image_02L.jpg --output windows.png
clinbundles show cam bundles/covid_xray_transfer/samples/datalist.json --output cam.png
clinbundles show masks runs/evaluation/masks --datalist datalist.json --output masks.png
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from monai.data import load_decathlon_datalist

from clinbundles.engines.outputs.files import distinct_stems, replacing
from clinbundles.engines.outputs.grad_cam import COLOR_MAP, GradCamWriter, blend_heat
from clinbundles.engines.outputs.masks import OUTCOMES, PREDICTION_COLOR, color_outcomes, draw_contour, stretched
from clinbundles.nets.weights import load_weights
from clinbundles.scripts.bundle import find_bundle, open_configs
from clinbundles.transforms.blur import AttentionGaussianBlur
from clinbundles.transforms.gaze.attention_map import GazeToAttentionMap, as_observers
from clinbundles.transforms.readers.images import BinaryMaskReader, RGBImageReader


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
    attention = GazeToAttentionMap(sigma_px=gaze_sigma_px)(
        chosen["fixations"], (height, width), chosen.get("original_size")
    )
    positive = AttentionGaussianBlur(sigma_base, weight=weight)(image, attention)
    reverse = AttentionGaussianBlur(weight, weight=weight, mode="reverse")(image, attention)

    observers = as_observers(chosen["fixations"])
    figure, axes = plt.subplots(1, 4, figsize=(14, 14 / 4 * height / width + 0.8), layout="constrained")
    figure.suptitle(
        f"{Path(chosen['image']).name}: {sum(map(len, observers))} fixations of {len(observers)} "
        f"observer{'s'[: len(observers) - 1]}, the larger the circle the longer; p has a width of {gaze_sigma_px:g} px"
    )
    axes[0].imshow(pixels)
    for x, y, duration_ms in np.concatenate(observers):
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
    save(figure, output)


def show_windows(
    image: str,
    *,
    label: str | None = None,
    ckpt_path: str | None = None,
    output: str = "windows.png",
    **knobs: Any,
) -> None:
    """Draw what the two stages do to ``image``: stage 1, the windows that stage 2 looks at again, and the result.

    Args:
        image: image file.
        label: its mask file; with it the result is drawn as hits, misses and false alarms, with its Dice.
        ckpt_path: weights; the bundle's own if not given.
        output: picture to write.
        knobs: top-level values of inference.json.
    """
    parser = open_configs(find_bundle("two_stage_segmentation"), ["inference"], **knobs)
    network = parser.get_parsed_content("network").eval()
    load_weights(network, ckpt_path or parser.get_parsed_content("ckpt_path"))
    pixels = parser.get_parsed_content("preprocessing")({"image": image})["image"][None].as_tensor()
    pixels = pixels.to(next(network.parameters()).device)
    with torch.inference_mode():
        stage_1 = network.stage_1(pixels)[0, 0].cpu().numpy()
        result = (network(pixels)[0, 0] > 0).cpu().numpy()
        corners, sides = network.corners(pixels)
    shown = (pixels[0].cpu().movedim(0, -1).expand(-1, -1, 3).numpy() * 255).astype(np.uint8)

    figure, axes = plt.subplots(1, 3, figsize=(15, 5.6))
    axes[0].imshow(shown)
    axes[0].set_title(f"{Path(image).name}: {len(corners)} windows of {sides[1]} x {sides[0]} px refined")
    axes[1].imshow(stage_1, cmap="gray", vmin=0, vmax=1)
    axes[1].set_title("probability of stage 1")
    for axis in axes[:2]:
        for _, top, left in corners.tolist():
            frame = plt.Rectangle((left, top), sides[1] - 1, sides[0] - 1, fill=False, color="orange", linewidth=2)
            axis.add_patch(frame)
    truth = None if label is None else stretched(BinaryMaskReader().read(label), result.shape)
    draw_outcomes(axes[2], shown, result, truth, name="both stages")
    for axis in axes:
        axis.axis("off")
    figure.tight_layout()
    save(figure, output)


def show_masks(
    masks: str,
    *,
    datalist: str,
    dataset_dir: str | None = None,
    split: str = "test",
    limit: int = 6,
    output: str = "masks.png",
) -> None:
    """Draw the masks that an evaluation wrote as hits, misses and false alarms, with the Dice of each image.

    Args:
        masks: folder of the masks.
        datalist: JSON datalist that was evaluated.
        dataset_dir: folder that its paths start from; the datalist's own if not given.
        split: which of its images.
        limit: how many of them, in their order.
        output: picture to write.
    """
    root = Path(dataset_dir or Path(datalist).parent)
    items = load_decathlon_datalist(datalist, True, split, root)
    stems = distinct_stems([Path(item["image"]) for item in items])
    shown = items[:limit]
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4 * columns, 3.6 * rows + 0.8), squeeze=False, layout="constrained"
    )
    scores = []
    for axis, item in zip(axes.flat, shown, strict=False):
        path = Path(item["image"])
        pixels = np.asarray(RGBImageReader().read(path))
        truth, mask = (
            stretched(BinaryMaskReader().read(file), pixels.shape[:2])
            for file in (item["label"], Path(masks) / f"{stems[path]}.png")
        )
        scores.append(draw_outcomes(axis, pixels, mask, truth, name=path.stem, legend=False))
    for axis in axes.flat:
        axis.axis("off")
    figure.legend(handles=legend_of_outcomes(), loc="outside lower center", ncol=3, frameon=False)
    figure.suptitle(f"{len(shown)} of {len(items)} {split} images, mean Dice at their own size {np.mean(scores):.3f}")
    save(figure, output)


def show_cam(
    datalist: str,
    *,
    dataset_dir: str | None = None,
    split: str = "test",
    each: int = 2,
    ckpt_path: str | None = None,
    output: str = "cam.png",
    **knobs: Any,
) -> None:
    """Draw X-rays of each class and what speaks for the class that the network predicts (Grad-CAM).

    Args:
        datalist: JSON datalist of labelled images.
        dataset_dir: folder that its paths start from; the datalist's own if not given.
        split: which of its images.
        each: how many of each class, in their order.
        ckpt_path: weights; the bundle's own if not given.
        output: picture to write.
        knobs: top-level values of inference.json.
    """
    own = {} if ckpt_path is None else {"ckpt_path": ckpt_path}
    parser = open_configs(find_bundle("covid_xray_transfer"), ["inference"], **knobs, **own)
    parser.get_parsed_content("weights_loader").load()
    network = parser.get_parsed_content("network").eval()
    names = parser.get_parsed_content("class_names")
    reader, preprocessing, postprocessing = (
        parser.get_parsed_content(name) for name in ("image_reader", "preprocessing", "postprocessing")
    )
    cam = GradCamWriter(".", network, parser.get_parsed_content("cam_layer"), names, reader)
    items = load_decathlon_datalist(datalist, False, split, dataset_dir or Path(datalist).parent)
    by_class = [[item for item in items if item["label"] == number][:each] for number in range(len(names))]

    figure = plt.figure(figsize=(5 * len(names), 2.3 * each + 0.6), layout="constrained")
    axes = figure.subplots(each, 2 * len(names), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    right_calls = []
    for column, (name, chosen) in enumerate(zip(names, by_class, strict=True)):
        for row, item in enumerate(chosen):
            image = preprocessing({"image": item["image"]})["image"].as_tensor()
            with torch.inference_mode():
                logits = network(image[None].to(next(network.parameters()).device))[0].cpu()
            probabilities = postprocessing({"pred": logits})["pred"]
            best = int(probabilities.argmax())
            right_calls.append(best == item["label"])
            pixels = np.asarray(reader.read(item["image"]))
            left, right = axes[row, 2 * column : 2 * column + 2]
            left.imshow(pixels, cmap="gray", vmin=0, vmax=255)
            left.set_title(name, fontsize=10)
            right.imshow(blend_heat(pixels, cam.heat_map(image, best)))
            right.set_title(f"called {names[best]}: {float(probabilities[best]):.1%}", fontsize=10)
    scale = figure.colorbar(ScalarMappable(cmap=COLOR_MAP), ax=axes, location="right", shrink=0.6, ticks=[0, 1])
    scale.ax.set_yticklabels(["nothing", "most"])
    scale.set_label("speaks for the class that was called")
    figure.suptitle(f"{len(right_calls)} of {len(items)} {split} images, {sum(right_calls)} called right, and Grad-CAM")
    save(figure, output)


def draw_outcomes(
    axis: Axes, image: np.ndarray, mask: np.ndarray, truth: np.ndarray | None, *, name: str, legend: bool = True
) -> float:
    """Colour an image's hits, misses and false alarms, and put the Dice into the title.

    Args:
        axis: where to draw.
        image: uint8 (H, W, 3).
        mask: bool (H, W), the prediction.
        truth: bool (H, W); None draws the prediction alone.
        name: what the picture shows.
        legend: name the colours.

    Returns:
        The Dice; 1 where both masks are empty, NaN without a truth.
    """
    if truth is None:
        axis.imshow(draw_contour(image, mask, PREDICTION_COLOR))
        axis.set_title(f"{name}: the mask")
        return math.nan
    axis.imshow(color_outcomes(image, mask, truth))
    total = int(mask.sum() + truth.sum())
    dice = 2 * int((mask & truth).sum()) / total if total else 1.0
    axis.set_title(f"{name}: Dice {dice:.3f}")
    if legend:
        axis.legend(handles=legend_of_outcomes(), loc="lower right", fontsize=8)
    return dice


def legend_of_outcomes() -> list[Patch]:
    """Name the colours."""
    return [Patch(color=(r / 255, g / 255, b / 255), label=name) for name, (r, g, b) in OUTCOMES.items()]


def save(figure: Figure, output: str) -> None:
    """Write a figure whole or not at all, in the format of its file's suffix, and say where."""
    with replacing(Path(output)) as partial:
        figure.savefig(partial, format=Path(output).suffix[1:] or "png", dpi=80)
    plt.close(figure)
    print(output)
