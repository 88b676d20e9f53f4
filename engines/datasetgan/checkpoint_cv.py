"""Cross-validation of the epoch: a part of the test images chooses it, the others score it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events

from ..folds import folds_by_group, folds_in_order
from ..metrics.class_overlap import ClassOverlap, scores_of
from ..outputs.files import write_atomically

NAMES = {"miou": "mIoU", "miou_foreground": "without background"}
CAVEAT = "this protocol selects epochs on test images"


class CheckpointCV:
    """Score one training as DatasetGAN's published code does, which its paper calls cross-validation.

    The test images are cut into folds. Each fold chooses the epoch of the highest mIoU on it, of equals the first, and
    all other images are scored with that epoch. Nothing is trained again, and test images choose: the values compare
    with those of that code, and are no estimate for new images. A class that is nowhere among the images counts in no
    mean; that code counts it as 0.

    Args:
        output_dir: folder for ``checkpoint_cv.json``.
        overlap: the metric of the evaluator, whose images are the test images.
        folds: number of folds.
        fold_by: "order" cuts the list into folds of one size, as that code does: the last images, fewer than there are
            folds, choose no epoch and are always scored. "group" deals whole groups, such as patients, to the folds.

    Raises:
        ValueError: another ``fold_by``; when the evaluator is made, there are fewer images or groups than folds, an
            item lacks its group, or there are several processes; in :meth:`write`, there is no epoch.

    Source: Zhang et al. 2021, DatasetGAN, its code.
    """

    def __init__(
        self, output_dir: str | os.PathLike, overlap: ClassOverlap, *, folds: int = 5, fold_by: str = "order"
    ) -> None:
        if fold_by not in ("order", "group"):
            raise ValueError(f"fold_by is {fold_by!r}, expected order or group.")
        self.path = Path(output_dir) / "checkpoint_cv.json"
        self.overlap = overlap
        self.n_folds = folds
        self.fold_by = fold_by
        self.epochs: dict[int, np.ndarray] = {}

    def attach(self, engine: Engine) -> None:
        """Register with the evaluator, and cut the images of its data set."""
        if idist.get_world_size() > 1:
            raise ValueError("checkpoint_cv runs in one process: several share the test images out between them.")
        evaluator: Any = engine
        self.folds = self._cut(evaluator.data_loader.dataset.data)
        engine.add_event_handler(Events.COMPLETED, self.keep)

    def _cut(self, items: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
        self.n_images = len(items)
        if self.fold_by == "order":
            return folds_in_order(len(items), self.n_folds)
        groups = [item.get("group") for item in items]
        if None in groups:
            raise ValueError(f"fold_by is group, and test image {groups.index(None)} has no group in the datalist.")
        return folds_by_group(groups, self.n_folds)

    def keep(self, engine: Engine) -> None:
        """Keep the counts of each image for the epoch that has been evaluated."""
        self.epochs[engine.state.epoch] = np.stack(self.overlap.images)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Give the epochs (E,) and their counts (E, N, K, K), for a checkpoint."""
        if not self.epochs:
            return {}
        counts = torch.from_numpy(np.stack(list(self.epochs.values())))
        return {"epochs": torch.tensor(list(self.epochs)), "counts": counts}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take the counts of earlier epochs from a checkpoint.

        Raises:
            ValueError: they are of another number of images or classes.
        """
        if not state:
            return
        n_images, n_classes = state["counts"].shape[1:3]
        if (n_images, n_classes) != (self.n_images, len(self.overlap.class_names)):
            raise ValueError(
                f"{n_images} test images and {n_classes} classes, this training has {self.n_images} and "
                f"{len(self.overlap.class_names)}"
            )
        self.epochs = dict(zip(state["epochs"].tolist(), state["counts"].numpy(), strict=True))

    def write(self) -> dict[str, Any]:
        """Score the folds, write them and say the means."""
        if not self.epochs:
            raise ValueError("no epoch was evaluated, so there is nothing to choose from: give a smaller val_interval.")
        numbers = sorted(self.epochs)
        about: dict[str, Any] = {
            "protocol": f"checkpoint_cv: {CAVEAT}; std is of the population",
            "fold_by": self.fold_by,
            "images": self.n_images,
            "epochs": numbers,
        }
        result = about | cross_validate(np.stack([self.epochs[number] for number in numbers]), self.folds, numbers)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, json.dumps(_without_nan(result), indent=1) + "\n")
        values = ", ".join(f"{word} {result[k]['mean']:.4f} ± {result[k]['std']:.4f}" for k, word in NAMES.items())
        images, epochs = (", ".join(str(fold[key]) for fold in result["folds"]) for key in ("images", "epoch"))
        print(
            f"checkpoint_cv: {values}; folds by {self.fold_by} of {images} images chose the epochs {epochs}; {CAVEAT}",
            flush=True,
        )
        return result


def cross_validate(counts: np.ndarray, folds: Sequence[np.ndarray], epochs: Sequence[int]) -> dict[str, Any]:
    """Choose an epoch by each fold and score the other images with it.

    Args:
        counts: (E, N, K, K) pixels of each pair of classes, of E epochs and N images.
        folds: for each the places of its images among the N.
        epochs: the numbers of the E epochs.

    Returns:
        folds, with images, epoch, images_scored and scores of each, and for each score mean and the standard deviation
        of the population.
    """
    parts = []
    for fold in folds:
        best = int(np.argmax([scores_of(epoch[fold].sum(axis=0))["miou"] for epoch in counts]))
        others = np.delete(counts[best], fold, axis=0)
        scores = scores_of(others.sum(axis=0))
        about = {"images": len(fold), "epoch": epochs[best], "images_scored": len(others)}
        parts.append({**about, **{name: scores[name] for name in NAMES}})
    summary = {
        name: {"mean": float(np.mean([p[name] for p in parts])), "std": float(np.std([p[name] for p in parts]))}
        for name in NAMES
    }
    return {"folds": parts, **summary}


def _without_nan(value: Any) -> Any:
    """Put None where JSON has no number."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
