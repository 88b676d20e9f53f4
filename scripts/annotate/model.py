"""What a trained network thinks of the pixels in a box, to ask about those it is least certain of."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torchvision.ops import box_iou

from clinbundles.nets.cascade_mask_rcnn.instances import paste_mask
from clinbundles.scripts.bundle import find_bundle, load_network, open_configs

from .questions import Model

LEAST_OVERLAP = 0.5


def network_model(bundle: str, ckpt_path: str | None) -> Model:
    """Open the network of a bundle's inference, as a function of image, box and pixels."""
    options: dict[str, Any] = {} if ckpt_path is None else {"ckpt_path": ckpt_path}
    parser = open_configs(find_bundle(bundle), ["inference"], **options)
    network: Any = load_network(parser)
    preprocessing, inferer = (parser.get_parsed_content(name) for name in ("preprocessing", "inferer"))

    lock = Lock()  # the network keeps the detections of one call at a time

    @lru_cache(maxsize=64)
    def detections_in(image: Path) -> tuple[dict[str, torch.Tensor], tuple[int, int]]:
        pixels = preprocessing({"image": str(image)})["image"][None]
        with torch.inference_mode():
            inferer(pixels, network)
        return network.detections[0], (pixels.shape[2], pixels.shape[3])

    def probabilities(image: Path, box: list[float], pixels: np.ndarray) -> np.ndarray | None:
        with lock:
            found, size = detections_in(image)
        x, y, width, height = box
        overlaps = box_iou(torch.tensor([[x, y, x + width, y + height]]), found["boxes"].float())[0]
        if not len(overlaps) or overlaps.max() < LEAST_OVERLAP:
            return None
        best = int(overlaps.argmax())
        values, top, left = paste_mask(
            found["masks"][best].float().numpy(), found["boxes"][best].double().numpy(), size
        )
        canvas = np.zeros(size)
        canvas[top : top + values.shape[0], left : left + values.shape[1]] = values
        return canvas[pixels[:, 1], pixels[:, 0]]

    return probabilities
