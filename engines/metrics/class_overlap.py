"""Intersection over union of classes, counted over all images of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine
from ignite.metrics import Metric

from ..outputs.summary import describe_set
from .intervals import interval_of, number_groups, resample, resample_matrices, with_interval


def count_pairs(prediction: torch.Tensor, truth: torch.Tensor, n_classes: int) -> np.ndarray:
    """Count the pixels of each pair of classes.

    Args:
        prediction: class of each pixel, any shape.
        truth: class of each pixel, of the same shape.
        n_classes: number of classes K.

    Returns:
        int64 (K, K): rows are the truth, columns the prediction.

    Raises:
        ValueError: the shapes differ, or a value is no class.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"a prediction of shape {tuple(prediction.shape)} for a truth of {tuple(truth.shape)}.")
    pairs = torch.stack([truth.flatten(), prediction.flatten()]).long()
    if pairs.numel() and not 0 <= int(pairs.min()) <= int(pairs.max()) < n_classes:
        raise ValueError(f"classes from {int(pairs.min())} to {int(pairs.max())}, expected 0 to {n_classes - 1}.")
    counts = torch.bincount(pairs[0] * n_classes + pairs[1], minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes).cpu().numpy()


def intersection_over_union(counts: np.ndarray) -> np.ndarray:
    """Divide the pixels in both by those in either, for each class.

    Args:
        counts: (..., K, K) as :func:`count_pairs` gives them, or sums of them.

    Returns:
        (..., K); NaN for a class that is in neither.
    """
    both = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    either = counts.sum(axis=-1) + counts.sum(axis=-2) - both
    return np.divide(both, either, out=np.full(both.shape, np.nan), where=either > 0)


class ClassOverlap(Metric):
    """Score label maps by the intersection over union of each class, all images pooled.

    Each result is a metric of its own by ``overlap["miou"]``: ``miou``, the mean over the classes with the background
    among them, as DatasetGAN's code counts it; ``miou_foreground`` without it; ``iou_<k>`` of class k. A class that is
    nowhere, neither in truth nor in prediction, is left out of a mean.

    ``images`` keeps the counts of each image, (K, K).

    Args:
        class_names: of the classes, the background first.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = list(class_names)
        super().__init__()

    def reset(self) -> None:
        """Begin a new evaluation."""
        self.images: list[np.ndarray] = []

    def iteration_completed(self, engine: Engine) -> None:
        """Add the images of a batch, which MONAI's evaluator has taken apart."""
        state: Any = engine.state
        self.update(state.output)

    def update(self, output: Sequence[Mapping[str, torch.Tensor]]) -> None:
        """Add items with ``pred`` and ``label``, both (1, ...) of classes."""
        for item in output:
            self.images.append(count_pairs(item["pred"], item["label"], len(self.class_names)))

    def compute(self) -> dict[str, float]:
        """Return all results by name, of the images of all processes."""
        n_classes = len(self.class_names)
        counts = torch.from_numpy(sum(self.images, np.zeros((n_classes, n_classes), np.int64)))
        return scores_of(np.asarray(idist.all_reduce(counts)))


def scores_of(counts: np.ndarray) -> dict[str, float]:
    """Name the scores of counts (K, K): ``miou``, ``miou_foreground`` and ``iou_<k>``."""
    iou = intersection_over_union(counts)
    present, foreground = iou[~np.isnan(iou)], iou[1:][~np.isnan(iou[1:])]
    return {
        "miou": float(present.mean()) if len(present) else float("nan"),
        "miou_foreground": float(foreground.mean()) if len(foreground) else float("nan"),
        **{f"iou_{k}": float(value) for k, value in enumerate(iou)},
    }


def pooled_overlap(counts: np.ndarray, *, first_class: int = 0) -> np.ndarray:
    """Average the intersection over union of classes, from pixels that may be those of many images together.

    Args:
        counts: (..., 2, K), for each class the pixels in both and those in either.
        first_class: of the classes that are averaged; 1 leaves the background out.

    Returns:
        (...,); a class that is in neither is left out, and NaN stands where none is left.
    """
    both, either = counts[..., 0, first_class:].astype(float), counts[..., 1, first_class:].astype(float)
    iou = np.divide(both, either, out=np.full(both.shape, np.nan), where=either > 0)
    present = ~np.isnan(iou)
    total = np.where(present, iou, 0).sum(axis=-1)
    return np.divide(total, present.sum(axis=-1), out=np.full(total.shape, np.nan), where=present.any(axis=-1))


def summarize_overlap(rows: Sequence[Mapping[str, Any]], class_names: Sequence[str]) -> dict[str, Any]:
    """Score label maps by the pixels of all images, with 95 % intervals over the groups of the images.

    Args:
        rows: one an image, with ``both_<k>`` and ``either_<k>``, the pixels of class k in both and in either of truth
            and prediction, and ``patient``, a number, where that is known.
        class_names: of the classes, the background first.
    """
    patients = [row.get("patient", "") for row in rows]
    numbers = np.array([np.nan if patient == "" else patient for patient in patients], dtype=float)
    clusters = number_groups(numbers, len(rows))
    counts = np.zeros((clusters.max() + 1, 2, len(class_names)))
    each = [[[row[f"{name}_{k}"] for k in range(len(class_names))] for name in ("both", "either")] for row in rows]
    np.add.at(counts, clusters, np.array(each, dtype=float))

    def values(draws: np.ndarray) -> dict[str, np.ndarray]:
        sums = resample_matrices(counts, draws)
        both, either = sums[:, 0], sums[:, 1]
        iou = np.divide(both, either, out=np.full(both.shape, np.nan), where=either > 0)
        return {name: score(sums) for name, score in OVERLAP_SCORES.items()} | {"iou": iou}

    found = {
        name: (each.value, interval_of(each, units=len(counts))) for name, each in resample(values, len(counts)).items()
    }
    iou = zip(class_names, *found.pop("iou"), strict=True)
    return describe_set(patients) | {
        "scores": {name: with_interval(*each) for name, each in found.items()},
        "classes": {name: {"iou": with_interval(value, ends)} for name, value, ends in iou},
    }


# Scores of a whole set by the names that an evaluation gives them, from counts (..., 2, K).
OVERLAP_SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "val_miou": pooled_overlap,
    "val_miou_foreground": lambda counts: pooled_overlap(counts, first_class=1),
}
