"""Dice on probabilities, the figure that papers without a threshold report."""

from __future__ import annotations

from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric, do_metric_reduction


class SoftDiceMetric(CumulativeIterationMetric):
    """Probabilities and binary label (B, C, *S) in; the soft Dice of each image, averaged over the images, out.

    (2 sum(p y) + smooth) / (sum(p) + sum(y) + smooth), summed over the pixels of one image and channel. Unlike the
    Dice of a thresholded mask it charges every hesitant pixel, so the two are not to be compared with each other.

    Args:
        smooth: pixels added above and below; they make the score of an empty image with an empty prediction 1.

    Raises:
        ValueError: ``smooth`` not above 0; shapes that differ; a prediction outside [0, 1] or not a number, such as
            logits; a label with values other than 0 and 1.

    Source: the authors' code for Teixeira e Silva et al., Two-stage Semantic Segmentation in Neural Networks, whose
    Dice this is (smooth 1); section 4.3 of the paper writes it in counts of pixels.
    """

    def __init__(self, smooth: float = 1.0) -> None:
        super().__init__()
        if not smooth > 0:
            raise ValueError(f"smooth is {smooth}, expected more than 0.")
        self.smooth = smooth

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **_: Any) -> torch.Tensor:
        if y is None or y_pred.shape != y.shape:
            raise ValueError(
                f"prediction has shape {tuple(y_pred.shape)}, label {None if y is None else tuple(y.shape)}."
            )
        if not torch.all((y_pred >= 0) & (y_pred <= 1)):
            raise ValueError("the prediction holds values outside [0, 1], soft Dice takes probabilities.")
        if not torch.all((y == 0) | (y == 1)):
            raise ValueError("the label holds values other than 0 and 1.")
        axes = tuple(range(2, y.ndim))
        # Half precision cannot count the pixels of one image.
        probability, truth = y_pred.float(), y.float()
        shared = (probability * truth).sum(axes)
        return (2 * shared + self.smooth) / (probability.sum(axes) + truth.sum(axes) + self.smooth)

    def aggregate(self) -> torch.Tensor:
        """Mean over all images seen since the last reset."""
        return do_metric_reduction(self.get_buffer(), "mean")[0]
