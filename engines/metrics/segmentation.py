"""Scores of a binary segmentation by image, beside those of MONAI."""

from __future__ import annotations

from typing import Any, Literal

import torch
from monai.losses import DiceLoss
from monai.metrics import CumulativeIterationMetric, LossMetric, do_metric_reduction


class PixelRatioMetric(CumulativeIterationMetric):
    """Find the precision or recall of each image's binary prediction (B, C, H, W), and their mean over the images.

    precision = TP / (TP + FP), recall = TP / (TP + FN), counted in pixels of one image; pixels are never pooled over
    images. MONAI's ``ConfusionMatrixMetric`` leaves an image with an empty prediction out of the mean, which rewards a
    network for predicting nothing; here 0/0 is 1 if prediction and label are both empty, else 0.

    Args:
        ratio: "precision" or "recall".

    Raises:
        ValueError: unknown ``ratio``; shapes that differ; values other than 0 and 1.

    Source: Mao et al., Medical Image Segmentation on Attention-based Gaussian Blurring, eq. 9 and 10.
    """

    def __init__(self, ratio: Literal["precision", "recall"]) -> None:
        super().__init__()
        if ratio not in ("precision", "recall"):
            raise ValueError(f"ratio is {ratio!r}, expected 'precision' or 'recall'.")
        self.ratio = ratio

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **_: Any) -> torch.Tensor:
        if y is None or y_pred.shape != y.shape:
            raise ValueError(
                f"prediction has shape {tuple(y_pred.shape)}, label {None if y is None else tuple(y.shape)}."
            )
        for name, value in (("prediction", y_pred), ("label", y)):
            if not torch.all((value == 0) | (value == 1)):
                raise ValueError(f"the {name} holds values other than 0 and 1.")
        axes = tuple(range(2, y.ndim))
        true_positives = (y_pred * y).sum(axes).float()
        denominator = (y_pred if self.ratio == "precision" else y).sum(axes).float()
        both_empty = (y_pred.sum(axes) + y.sum(axes) == 0).float()
        return torch.where(denominator > 0, true_positives / denominator.clamp(min=1), both_empty)

    def aggregate(self) -> torch.Tensor:
        """Give the mean over all images since the last reset."""
        return do_metric_reduction(self.get_buffer(), "mean")[0]


class SoftDiceMetric(LossMetric):
    """Find the soft Dice of each image's probabilities (B, C, *S), and its mean over the images.

    (2 sum(p y) + smooth) / (sum(p) + sum(y) + smooth), summed over the pixels of one image and channel: 1 less MONAI's
    ``DiceLoss``. Unlike the Dice of a thresholded mask it charges every hesitant pixel, so the two are not to be
    compared with each other.

    Args:
        smooth: pixels added above and below; they make the score of an empty image with an empty prediction 1.

    Raises:
        ValueError: ``smooth`` not above 0; shapes that differ; a prediction outside [0, 1] or not a number, such as
            logits; a label with values other than 0 and 1.

    Source: the authors' code for Teixeira e Silva et al., Two-stage Semantic Segmentation in Neural Networks, whose
    Dice this is (smooth 1); section 4.3 of the paper writes it in counts of pixels.
    """

    def __init__(self, smooth: float = 1.0) -> None:
        if not smooth > 0:
            raise ValueError(f"smooth is {smooth}, expected more than 0.")
        super().__init__(DiceLoss(smooth_nr=smooth, smooth_dr=smooth, reduction="none"))

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **_: Any) -> torch.Tensor:
        if y is None or y_pred.shape != y.shape:
            raise ValueError(
                f"prediction has shape {tuple(y_pred.shape)}, label {None if y is None else tuple(y.shape)}."
            )
        if not torch.all((y_pred >= 0) & (y_pred <= 1)):
            raise ValueError("the prediction holds values outside [0, 1], soft Dice takes probabilities.")
        if not torch.all((y == 0) | (y == 1)):
            raise ValueError("the label holds values other than 0 and 1.")
        # Half precision cannot count the pixels of one image.
        loss = super()._compute_tensor(y_pred.float(), y.float())
        assert isinstance(loss, torch.Tensor)
        return 1 - loss.flatten(1)
