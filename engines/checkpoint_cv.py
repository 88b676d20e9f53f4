"""Cross-validation of the epoch: a part of the test images chooses it, the others score it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

from .metrics.class_overlap import ClassOverlap, scores_of
from .outputs.files import write_atomically

NAMES = ("miou", "miou_foreground")


class CheckpointCV:
    """Score one training as DatasetGAN's published code does, which its paper calls cross-validation.

    The test images are cut into folds in the order of their list. Each fold chooses the epoch of the highest mIoU on
    it, and the images of the other folds are scored with that epoch. Nothing is trained again, and test images choose:
    the values compare with those of that code, and are no estimate for new images.

    Args:
        output_dir: folder for ``checkpoint_cv.json``.
        overlap: the metric of the evaluator, whose images are the test images.
        folds: number of folds.
        resume: whether the training goes on with an earlier one, whose epochs would be missing.

    Raises:
        ValueError: the training is resumed; in :meth:`write`, there are fewer images than folds, or no epoch.

    Source: Zhang et al. 2021, DatasetGAN, its code.
    """

    def __init__(
        self, output_dir: str | os.PathLike, overlap: ClassOverlap, *, folds: int = 5, resume: bool = False
    ) -> None:
        if resume:
            raise ValueError("resume is true: checkpoint_cv needs all epochs of a training, so start it anew.")
        if folds < 2:
            raise ValueError(f"folds is {folds}, expected 2 or more.")
        self.output_dir = Path(output_dir)
        self.overlap = overlap
        self.folds = folds
        self.epochs: list[np.ndarray] = []

    def attach(self, engine: Engine) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.COMPLETED, self.keep)

    def keep(self, engine: Engine) -> None:
        """Keep the counts of each image for the epoch that has been evaluated."""
        self.epochs.append(np.stack(self.overlap.images))

    def write(self) -> dict[str, Any]:
        """Score the folds, write them and say the means."""
        if not self.epochs:
            raise ValueError("no epoch was evaluated, so there is nothing to choose from.")
        result = cross_validate(np.stack(self.epochs), self.folds)
        write_atomically(self.output_dir / "checkpoint_cv.json", json.dumps(result, indent=1) + "\n")
        values = ", ".join(f"{name} {result[name]['mean']:.4f} ± {result[name]['std']:.4f}" for name in NAMES)
        print(f"checkpoint_cv over {self.folds} folds, whose images choose the epoch: {values}", flush=True)
        return result


def cross_validate(counts: np.ndarray, folds: int) -> dict[str, Any]:
    """Choose an epoch by each fold and score the others with it.

    Args:
        counts: (E, N, K, K) pixels of each pair of classes, of E epochs and N images.
        folds: number of folds.

    Returns:
        folds, with images, epoch (from 1) and scores of each, and for each score mean and the standard deviation of
        the population.

    Raises:
        ValueError: there are fewer images than folds.
    """
    n_images = counts.shape[1]
    if n_images < folds:
        raise ValueError(f"{n_images} test images are fewer than {folds} folds.")
    parts = []
    for fold in np.array_split(np.arange(n_images), folds):
        chosen = int(np.argmax([scores_of(epoch[fold].sum(axis=0))["miou"] for epoch in counts]))
        others = np.setdiff1d(np.arange(n_images), fold)
        scores = scores_of(counts[chosen, others].sum(axis=0))
        parts.append({"images": len(fold), "epoch": chosen + 1, **{name: scores[name] for name in NAMES}})
    summary = {
        name: {"mean": float(np.mean([p[name] for p in parts])), "std": float(np.std([p[name] for p in parts]))}
        for name in NAMES
    }
    return {"folds": parts, **summary}
