"""Scores of sets of images with found cells, and their intervals by resampling images or groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from ...transforms.readers.coco import Instances
from ..outputs.summary import describe_set
from .detection import MAX_DETECTIONS, Detections, Matches
from .detection_intervals import match_image, resampled_average_precision
from .instances import ImageScores
from .intervals import Resampled, interval_of, number_groups, resample, with_interval

KINDS: dict[str, Literal["segm", "bbox"]] = {"mask": "segm", "box": "bbox"}
RANGES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
TITLES = {f"{kind}_{name.lower()}": f"{kind} {name}" for kind in KINDS for name in RANGES}
TITLES |= {"mask_ap_uncapped": "mask AP, all detections", "box_ap_uncapped": "box AP, all detections"}
UNKNOWN = np.full(2, np.nan)
TITLES |= {"f1": "F1", "accuracy": "TP/(TP+FP+FN)", "panoptic_quality": "panoptic quality"}


class ScoredImage(NamedTuple):
    """What was found in an image beside what it holds.

    Args:
        name: of the image.
        group: patient or whatever else the split keeps together; None where unknown.
        truth: its instances.
        detections: with scores, for average precision.
        matches: of its label map; None where there is no such map, or the truth has no masks.
    """

    name: str
    group: Any
    truth: Instances
    detections: Detections
    matches: Matches | None


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


def summarize_instances(
    metrics: Mapping[str, float], images: Sequence[ImageScores], groups: Sequence[Any], *, threshold: float
) -> dict[str, Any]:
    """Give the metrics of an evaluation of instances their 95 % intervals over the groups.

    Args:
        metrics: of the whole set, by name, such as "val_mask_ap"; what is no score of instances has no interval.
        images: those of the evaluation.
        groups: number of each image's patient or other group, "" where unknown.
        threshold: the least score of a cell in the label maps.
    """
    scored = [
        ScoredImage(
            str(number),
            None if group == "" else group,
            image.truth,
            image.detections,
            None if any(mask is None for mask in image.truth.masks) else image.matches(threshold),
        )
        for number, (image, group) in enumerate(zip(images, groups, strict=True))
    ]
    whole = ImageSet(scored)
    ends = {f"val_{name}": interval_of(each, units=whole.n_groups) for name, each in whole.resample().items()}
    ends["val_ap"] = ends.get("val_mask_ap", ends["val_box_ap"])
    scores = {name: with_interval(value, ends.get(name, UNKNOWN)) for name, value in metrics.items()}
    return describe_set(groups) | {"scores": scores}
