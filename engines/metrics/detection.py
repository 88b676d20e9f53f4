"""Scores of cell instances: average precision as COCO and LIVECell count it, and what label maps are scored by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from ...transforms.readers.coco import Instances, mask_area, pixels_of

# Areas in px of what LIVECell calls small, medium and large; a limit belongs to both of its neighbours.
AREA_RANGES = {"": (0, 1e10), "s": (0, 18**2), "m": (18**2, 31**2), "l": (31**2, 1e10)}
MAX_DETECTIONS = (100, 500, 2000)


class Detections(NamedTuple):
    """What a network found in an image.

    Args:
        boxes: (K, 4), corners x1, y1, x2, y2 in px.
        scores: (K,).
        masks: K run lengths {"size": [height, width], "counts": text}.
    """

    boxes: np.ndarray
    scores: np.ndarray
    masks: Sequence[dict[str, Any]]


def average_precision(
    truth: Sequence[Instances],
    detections: Sequence[Detections],
    *,
    of: Literal["bbox", "segm"],
    max_detections: Sequence[int] = MAX_DETECTIONS,
) -> dict[str, float]:
    """Find the average precision of boxes or masks over a set of images, all instances being of one class.

    Args:
        truth: what the images hold.
        detections: what was found in each of them.
        of: "bbox" or "segm", whose areas also make an instance small, medium or large.
        max_detections: how many of an image's detections count, those of the highest scores. AP is that of the last.

    Returns:
        ``AP`` (mean over the IoU thresholds 0.50, 0.55 ... 0.95), ``AP50``, ``AP75``, and AP of small, medium and
        large instances as ``APs``, ``APm`` and ``APl``, from 0 to 1; NaN where there is no such instance.

    Raises:
        ValueError: the two differ in length, or an instance without a mask is to be scored by masks.

    Source: Lin et al., Microsoft COCO, 2014; Edlund et al., LIVECell, 2021 (areas, 2000 detections).
    """
    if len(truth) != len(detections):
        raise ValueError(f"detections of {len(detections)} images, truth of {len(truth)}.")
    content = _as_coco(truth, of)
    listed = COCO(content)
    found = [
        {"image_id": number, "category_id": 1, "score": float(score), **_place(box, mask, of)}
        for number, image in enumerate(detections, start=1)
        for box, score, mask in zip(image.boxes, image.scores, image.masks, strict=True)
    ]
    evaluation = COCOeval_faster(listed, listed.loadRes(found), of, extra_calc=False)
    settings = evaluation.params
    settings.useCats = 0
    settings.maxDets = list(max_detections)
    settings.areaRng, settings.areaRngLbl = [list(limits) for limits in AREA_RANGES.values()], list(AREA_RANGES)
    evaluation.evaluate()
    evaluation.accumulate()
    # IoU thresholds, recalls, classes, areas, numbers of detections
    precision = evaluation.eval["precision"][:, :, 0, :, -1]
    scores = {f"AP{name}": _mean(precision[:, :, place]) for place, name in enumerate(AREA_RANGES)}
    thresholds = np.asarray(settings.iouThrs)
    by_threshold = {
        f"AP{percent}": _mean(precision[int(np.argmin(abs(thresholds - percent / 100))), :, 0]) for percent in (50, 75)
    }
    return {"AP": scores.pop("AP"), **by_threshold, **scores}


def _as_coco(truth: Sequence[Instances], of: str) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(truth, start=1):
        for box, mask in zip(image.boxes, image.masks, strict=True):
            if of == "segm" and mask is None:
                raise ValueError(f"image {image.image_id}: an instance has no mask to score masks by.")
            place = _place(box, mask, of)
            x1, y1, x2, y2 = map(float, box)
            area = (x2 - x1) * (y2 - y1) if mask is None or of == "bbox" else mask_area(mask)
            place |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": area, "iscrowd": 0, "category_id": 1}
            annotations.append({"id": len(annotations) + 1, "image_id": number, **place})
    images = [{"id": n, "height": image.height, "width": image.width} for n, image in enumerate(truth, start=1)]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cell"}]}


def _place(box: Sequence[float], mask: dict[str, Any] | None, of: str) -> dict[str, Any]:
    if of == "segm":
        return {"segmentation": mask}
    x1, y1, x2, y2 = map(float, box)
    return {"bbox": [x1, y1, x2 - x1, y2 - y1]}


def _mean(precision: np.ndarray) -> float:
    """Mean of what is defined; COCO writes -1 where it is not."""
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else float("nan")


class Matches(NamedTuple):
    """How the cells of two label maps match, counted over any number of images.

    Args:
        matched: cells that have a partner with an IoU above 0.5; it can only be one.
        surplus: cells that were found and are not there.
        missed: cells that are there and were not found.
        iou: sum of the IoU of the partners.
    """

    matched: int = 0
    surplus: int = 0
    missed: int = 0
    iou: float = 0.0

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN) at an IoU of 0.5; NaN without any cell."""
        return _share(2 * self.matched, 2 * self.matched + self.surplus + self.missed)

    @property
    def accuracy(self) -> float:
        """TP / (TP + FP + FN) at an IoU of 0.5, Cellpose's "average precision"; NaN without any cell."""
        return _share(self.matched, self.matched + self.surplus + self.missed)

    @property
    def panoptic_quality(self) -> float:
        """Mean IoU of the partners times F1; NaN without any cell. Source: Kirillov et al., Panoptic Segmentation."""
        return _share(2 * self.iou, 2 * self.matched + self.surplus + self.missed)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def match_label_maps(truth: np.ndarray, prediction: np.ndarray) -> Matches:
    """Match the cells of two label maps (H, W), whole numbers with 0 for background, by pairs of labels.

    Numbers may have gaps. Nothing of the size of cells times pixels is held, so that thousands of cells cost little.

    Raises:
        ValueError: the maps differ in size.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"label maps of {prediction.shape} and {truth.shape} px.")
    own, own_areas = _numbered(truth)
    other, other_areas = _numbered(prediction)
    both = (own > 0) & (other > 0)
    pairs, shared = np.unique(own[both] * len(other_areas) + other[both], return_counts=True)
    union = own_areas[pairs // len(other_areas)] + other_areas[pairs % len(other_areas)] - shared
    iou = shared / union
    partners = iou > 0.5
    matched = int(partners.sum())
    surplus, missed = len(other_areas) - 1 - matched, len(own_areas) - 1 - matched
    return Matches(matched, surplus, missed, float(iou[partners].sum()))


def pair_with_masks(label_map: np.ndarray, masks: Iterable[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Find for each cell of a label map the mask that it matches, where masks may overlap each other.

    Args:
        label_map: whole numbers (H, W), 0 for background.
        masks: run lengths of the truth.

    Returns:
        the numbers of the cells (N,), rising, and the IoU of each with its partner, 0 where none is above 0.5 (N,).
    """
    places, areas = _numbered(label_map)
    iou = np.zeros(len(areas))
    for mask in masks:
        rows, columns = pixels_of(mask)
        cells, shared = np.unique(places[rows, columns], return_counts=True)
        values = np.where(cells > 0, shared / (len(rows) + areas[cells] - shared), 0)
        best = int(np.argmax(values)) if len(values) else 0
        if len(values) and values[best] > 0.5:
            iou[cells[best]] = max(iou[cells[best]], values[best])
    numbers = np.unique(label_map)
    return numbers[numbers != 0], iou[1:]


def _numbered(label_map: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the cells of a map from 1 without gaps: the map, int64, and the areas by number, that of 0 included."""
    labels, places, areas = np.unique(label_map, return_inverse=True, return_counts=True)
    places = places.reshape(label_map.shape)
    if 0 in labels:
        return places, areas
    return places + 1, np.concatenate([[0], areas])


def add_matches(matches: Iterable[Matches]) -> Matches:
    """Add up the matches of several images."""
    columns = list(zip(*matches, strict=True))
    return Matches(*map(sum, columns)) if columns else Matches()
