"""Average precision over resampled images, each of which is matched once and never again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from faster_coco_eval.core import mask as coco_mask

from ...transforms.readers.coco import Instances, mask_area
from .detection import AREA_RANGES, MAX_DETECTIONS, Detections

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AT_A_TIME = 1_500_000  # detections of all resamples, which bounds the memory
HIT, FALSE_ALARM, IGNORED = 1, 0, -1


class ImageMatches(NamedTuple):
    """How the detections of one image match what it holds, by area range and IoU threshold.

    Args:
        scores: of the D detections, falling.
        outcomes: int8 (areas, thresholds, D): HIT, FALSE_ALARM, or IGNORED where it is of another area range.
        n_truth: instances of each area range (areas,).
    """

    scores: np.ndarray
    outcomes: np.ndarray
    n_truth: np.ndarray


def match_image(
    truth: Instances, detections: Detections, *, of: Literal["bbox", "segm"], max_detections: int = MAX_DETECTIONS[-1]
) -> ImageMatches:
    """Match the detections of an image as COCO does: by falling score, each to the instance it overlaps most.

    Args:
        truth: what the image holds.
        detections: what was found.
        of: what to compare, "bbox" or "segm".
        max_detections: how many of the highest scores count.

    Source: Lin et al., Microsoft COCO, 2014, and its published evaluation.
    """
    order = np.argsort(-np.asarray(detections.scores), kind="stable")[:max_detections]
    areas, found_areas, overlaps = _compared(truth, detections, order, of)
    candidates = [np.flatnonzero(row >= THRESHOLDS[0] - 1e-9) for row in overlaps]
    outcomes = np.zeros((len(AREA_RANGES), len(THRESHOLDS), len(order)), dtype=np.int8)
    n_truth = np.zeros(len(AREA_RANGES), dtype=int)
    for place, (low, high) in enumerate(AREA_RANGES.values()):
        other = (areas < low) | (areas > high)
        n_truth[place] = int((~other).sum())
        far = (found_areas < low) | (found_areas > high)
        for step, threshold in enumerate(THRESHOLDS):
            partners = _pair(overlaps, candidates, other, threshold)
            hit = partners >= 0
            ignored = np.where(hit, other[partners] if len(other) else False, far)
            outcomes[place, step] = np.where(ignored, IGNORED, np.where(hit, HIT, FALSE_ALARM))
    return ImageMatches(np.asarray(detections.scores, dtype=float)[order], outcomes, n_truth)


def _compared(
    truth: Instances, detections: Detections, order: np.ndarray, of: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the areas of the truth (G,) and of the detections (D,), and their IoU (D, G)."""
    boxes = _as_sizes(np.asarray(detections.boxes, dtype=float).reshape(-1, 4)[order])
    given = _as_sizes(np.asarray(truth.boxes, dtype=float).reshape(-1, 4))
    if of == "bbox":
        areas, found_areas = given[:, 2:].prod(axis=1), boxes[:, 2:].prod(axis=1)
        pairs: Any = (boxes, given)
    else:
        if any(mask is None for mask in truth.masks):
            raise ValueError(f"image {truth.image_id}: an instance has no mask to score masks by.")
        masks = [detections.masks[place] for place in order]
        areas = np.array([mask_area(mask) for mask in truth.masks if mask is not None], dtype=float)
        found_areas = np.array([mask_area(mask) for mask in masks], dtype=float)
        pairs = (masks, list(truth.masks))
    if not len(areas) or not len(found_areas):
        return areas, found_areas, np.zeros((len(found_areas), len(areas)))
    return areas, found_areas, np.asarray(coco_mask.iou(*pairs, [0] * len(areas)))


def _as_sizes(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _pair(overlaps: np.ndarray, candidates: Sequence[np.ndarray], other: np.ndarray, threshold: float) -> np.ndarray:
    """Return the instance that each detection takes, -1 for none; those of the area range go first."""
    partners = np.full(len(overlaps), -1)
    free = np.ones(len(other), dtype=bool)
    for number, near in enumerate(candidates):
        near = near[free[near] & (overlaps[number, near] >= min(threshold, 1 - 1e-10))]
        if not len(near):
            continue
        own = near[~other[near]]
        near = own if len(own) else near
        # COCO takes the last of several that overlap alike.
        best = near[len(near) - 1 - int(np.argmax(overlaps[number, near][::-1]))]
        partners[number], free[best] = best, False
    return partners


def resampled_average_precision(images: Sequence[ImageMatches], draws: np.ndarray) -> dict[str, np.ndarray]:
    """Find the average precision of resamples of P images.

    Detections of one score are one point of the curve, all of them or none: COCO takes them one by one, and where a
    method gives no scores its value then depends on the order of the images.

    Args:
        images: the P images.
        draws: how often each is in each of R resamples (R, P); a row of ones is the set itself.

    Returns:
        ``AP``, ``AP50``, ``AP75``, ``APs``, ``APm`` and ``APl`` as :func:`.detection.average_precision` counts them,
        (R,) each; NaN where a resample has no such instance.
    """
    n_truth = draws @ np.array([image.n_truth for image in images])
    sizes = [len(image.scores) for image in images]
    owners = np.repeat(np.arange(len(images)), sizes)
    scores = np.concatenate([image.scores for image in images])
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    outcomes = np.concatenate([image.outcomes for image in images], axis=2)[:, :, order]
    owners = owners[order]
    precision = np.full((len(draws), *outcomes.shape[:2]), np.nan)
    n_rows = max(1, AT_A_TIME // max(1, len(owners)))
    for start in range(0, len(draws), n_rows):
        rows = slice(start, start + n_rows)
        weights = draws[rows][:, owners]
        for place, step in np.ndindex(outcomes.shape[:2]):
            precision[rows, place, step] = _precision(outcomes[place, step], scores, weights, n_truth[rows, place])
    result = {"AP": precision[:, 0].mean(axis=1)}
    result |= {f"AP{percent}": precision[:, 0, int(np.argmin(abs(THRESHOLDS - percent / 100)))] for percent in (50, 75)}
    names = [f"AP{name}" for name in AREA_RANGES]
    return result | {names[place]: precision[:, place].mean(axis=1) for place in range(1, len(names))}


def _precision(outcomes: np.ndarray, scores: np.ndarray, weights: np.ndarray, n_truth: np.ndarray) -> np.ndarray:
    """Return the mean precision over 101 recalls of R resamples, from outcomes and scores (N,) and counts (R, N)."""
    counted = outcomes != IGNORED
    hits = np.flatnonzero(outcomes[counted] == HIT)
    scores, weights = scores[counted], weights[:, counted]
    # The last detection of each score that has a hit, and how many hits there are up to it.
    last = np.unique(np.searchsorted(-scores, -scores[hits], side="right") - 1)
    total = np.cumsum(weights, axis=1)[:, last]
    true = np.cumsum(weights[:, hits], axis=1)[:, np.searchsorted(hits, last, side="right") - 1]
    # What is drawn no time adds no recall, and has the precision of the one before.
    ratio = true / np.maximum(total, 1)
    ratio = np.maximum.accumulate(ratio[:, ::-1], axis=1)[:, ::-1]
    ratio = np.concatenate([ratio, np.zeros((len(ratio), 1))], axis=1)
    result = np.full(len(n_truth), np.nan)
    for row in np.flatnonzero(n_truth > 0):
        places = np.searchsorted(true[row] / n_truth[row], RECALLS, side="left")
        result[row] = ratio[row, places].mean()
    return result
