"""Scores of sets of images with found cells, and their intervals by resampling images or groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from clinbundles.engines.metrics.detection import MAX_DETECTIONS, Matches
from clinbundles.engines.metrics.detection_intervals import match_image, resampled_average_precision
from clinbundles.engines.metrics.intervals import Resampled, number_groups, resample

from .predictions import ScoredImage

KINDS: dict[str, Literal["segm", "bbox"]] = {"mask": "segm", "box": "bbox"}
RANGES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
TITLES = {f"{kind}_{name.lower()}": f"{kind} {name}" for kind in KINDS for name in RANGES}
TITLES |= {"mask_ap_uncapped": "mask AP, all detections", "box_ap_uncapped": "box AP, all detections"}
TITLES |= {"f1": "F1", "accuracy": "TP/(TP+FP+FN)", "panoptic_quality": "panoptic quality"}


class ImageSet:
    """Images whose cells are matched, ready to be scored whole or resampled.

    Args:
        images: in an order that sets to be compared share.
    """

    def __init__(self, images: Sequence[ScoredImage]) -> None:
        self.names = [image.name for image in images]
        kinds = dict(KINDS)
        if any(mask is None for image in images for mask in image.truth.masks):
            del kinds["mask"]
        self._matches = {
            kind: [match_image(image.truth, image.detections, of=of) for image in images] for kind, of in kinds.items()
        }
        self._uncapped = dict(self._matches)
        if (most := max((len(image.detections.scores) for image in images), default=0)) > MAX_DETECTIONS[-1]:
            self._uncapped = {
                kind: [match_image(image.truth, image.detections, of=of, max_detections=most) for image in images]
                for kind, of in kinds.items()
            }
        self._counts: np.ndarray | None = None
        matches = [image.matches for image in images if image.matches is not None]
        if matches and len(matches) == len(images):
            self._counts = np.array(matches, dtype=float)
        groups = {group: number for number, group in enumerate(dict.fromkeys(image.group for image in images))}
        known = [np.nan if image.group is None else groups[image.group] for image in images]
        self.groups = number_groups(np.array(known), len(images))

    @property
    def n_groups(self) -> int:
        """Number of patients or other groups; an image without one is a group of its own."""
        return int(self.groups.max()) + 1

    def resample(self) -> dict[str, Resampled]:
        """Score the set, resamples of its groups, and the set without each group."""
        return resample(lambda draws: self.scores(draws[:, self.groups]), self.n_groups)

    def scores(self, draws: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Score resamples.

        Args:
            draws: how often each image counts (R, N); None for the set as it is.

        Returns:
            by the names of TITLES values (R,), as far as the truth has masks and the predictions label maps.
        """
        counts = np.ones((1, len(self.names)), dtype=int) if draws is None else draws
        result: dict[str, np.ndarray] = {}
        for kind, matches in self._matches.items():
            values = resampled_average_precision(matches, counts)
            result |= {f"{kind}_{name.lower()}": values[name] for name in RANGES}
            uncapped = self._uncapped[kind]
            all_of_them = values if uncapped is matches else resampled_average_precision(uncapped, counts)
            result[f"{kind}_ap_uncapped"] = all_of_them["AP"]
        if self._counts is not None:
            totals = [Matches(*row) for row in counts @ self._counts]  # type: ignore[arg-type]
            for name in ("f1", "accuracy", "panoptic_quality"):
                result[name] = np.array([getattr(total, name) for total in totals])
        return result
