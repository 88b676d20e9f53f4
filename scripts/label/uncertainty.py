"""How unsure a network is of an image, as its method tells it: what one would have a person label next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from clinbundles.nets.datasetgan.pixel_classifier import image_uncertainty, jensen_shannon
from clinbundles.nets.uncertain_windows import pixel_uncertainty, window_uncertainty


def uncertainty_of(network: Any, image: torch.Tensor, pred: torch.Tensor) -> float:
    """Return how unsure a network is of one image: 0 where it is sure, 1 where it cannot tell at all.

    - A network of two stages: the mean score of the windows that it would refine, by its first stage.
    - A network of instances: the mean entropy of the scores of what it found; 0 where it found nothing.
    - Any other: the mean entropy of its pixels, or of its classes.

    Args:
        network: as it was just run.
        image: (1, C, *S), on the network's device.
        pred: what it said of the image: logits (1, K, *S), or (1, K) of a classification.

    Source of the first: Teixeira e Silva et al., Two-stage Semantic Segmentation in Neural Networks, section 3.
    """
    if hasattr(network, "stage_1"):
        return _of_windows(network, image)
    if getattr(network, "detections", None) is not None:
        scores = torch.as_tensor(network.detections[0]["scores"]).float().reshape(1, 1, -1)
        return float(pixel_uncertainty(scores, "entropy").mean()) if scores.numel() else 0.0
    logits = torch.as_tensor(pred).float()
    probabilities = torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)
    return float(pixel_uncertainty(probabilities, "entropy").mean())


def committee_uncertainty(maps: Sequence[torch.Tensor]) -> float:
    """Return how far several weights of a network differ on an image: Jensen-Shannon in nats, of the worst tenth.

    Args:
        maps: probabilities of K classes (1, K, *S) by each of the weights.

    Source: Zhang et al., DatasetGAN, section 3.1, where the committee is of the classifiers of pixels.
    """
    flat = torch.stack([each.flatten(2).unsqueeze(-1) for each in maps])  # (n, 1, K, pixels, 1)
    return float(image_uncertainty(jensen_shannon(flat))[0])


def _of_windows(network: Any, image: torch.Tensor) -> float:
    patch, stride, _ = network.windows(image)
    sides = zip(image.shape[:1:-1], patch[::-1], strict=True)
    padding = [number for side, length in sides for number in (0, length * network.n_patches - side)]
    with torch.no_grad():
        first = network.stage_1(F.pad(torch.as_tensor(image), padding, mode="replicate"))
    scores = window_uncertainty(torch.as_tensor(first), network.score, patch, stride)[0]
    return float(scores.topk(min(network.n_select, len(scores)) if network.n_select > 0 else len(scores))[0].mean())
