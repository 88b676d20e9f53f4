"""What speaks for the class that a network calls: X-rays of each class beside their Grad-CAM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.cm import ScalarMappable
from monai.data import load_decathlon_datalist

from clinbundles.engines.outputs.grad_cam import COLOR_MAP, GradCamWriter, blend_heat
from clinbundles.scripts.bundle import find_bundle, open_configs

from .drawing import save


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
