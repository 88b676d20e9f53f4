"""Scores of the instances that a network finds, as metrics of an evaluator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine
from ignite.metrics import Metric
from torch import nn
from torchvision.ops import box_iou

from ...nets.cascade_mask_rcnn.instances import label_map, paste_masks
from ...transforms.readers.coco import (
    Instances,
    decode_mask,
    encode_positions,
    instances_of,
    mask_box,
    points_of,
)
from .detection import MAX_DETECTIONS, Detections, Matches, add_matches, average_precision, pair_with_masks
from .detection_intervals import match_image, resampled_average_precision

# Multiples of 1/32, which half precision holds exactly.
THRESHOLDS = np.arange(2, 31) / 32


class ImageScores(NamedTuple):
    """What is kept of an image.

    Args:
        truth: what the image holds.
        detections: what was found, for the average precision.
        scores: of the cells in the label map (N,).
        iou: of each of these with its partner of more than 0.5, 0 where it has none (N,).
        n_points: labelled points of an image whose cells have no masks, and those of them that the masks found agree
            with.
    """

    truth: Instances
    detections: Detections
    scores: np.ndarray
    iou: np.ndarray
    n_points: tuple[int, int]

    def matches(self, threshold: float) -> Matches:
        """Count the partners in the label map from a score on."""
        shown = self.scores >= threshold
        iou = self.iou[shown]
        matched = int((iou > 0).sum())
        return Matches(matched, len(iou) - matched, len(self.truth.boxes) - matched, float(iou.sum()))


class InstanceScores(Metric):
    """Score boxes, masks and label maps over all images of an evaluation.

    The results, each of which is a metric of its own by ``scores["mask_ap"]``:

    - ``mask_ap``, ``mask_ap50``, ``mask_ap75``, ``mask_aps``, ``mask_apm``, ``mask_apl`` and the same of boxes, as
      :func:`.detection.average_precision` counts them, at up to 2,000 detections an image; ``mask_ap_uncapped`` and
      ``box_ap_uncapped`` at all of them.
    - ``f1``, ``accuracy`` and ``panoptic_quality`` of the label map: see :class:`.detection.Matches`.
    - ``threshold``: the least score in that label map.
    - ``ap``: ``mask_ap``; where the truth has no masks ``box_ap``. Then what needs masks is NaN, and ``point_accuracy``
      is the share of the truth's points whose label the best-overlapping mask agrees with.

    With ``choose_threshold`` the threshold is the one of the highest F1, and the network is told to keep it. Give that
    to a validation and never to a test.

    The items have ``label``, a COCO list, and ``image_id``, the image in it. A network with ``detections`` has one
    entry for each image of the batch; of another the numbers of its label map are cells, with a score of 1 each.

    Args:
        network: the network that is evaluated.
        choose_threshold: set the network's threshold at the end.

    Raises:
        ValueError: with ``choose_threshold``, not one image holds a cell.
    """

    def __init__(self, network: nn.Module, *, choose_threshold: bool = False) -> None:
        self.network = network
        self.choose_threshold = choose_threshold
        super().__init__()

    def reset(self) -> None:
        """Begin a new evaluation."""
        self.images: list[ImageScores] = []
        self.result: dict[str, float] | None = None

    def started(self, engine: Engine) -> None:
        """Begin a new evaluation, and its values by image."""
        super().started(engine)
        state: Any = engine.state
        state.metric_details = {"val_f1": []}

    def iteration_completed(self, engine: Engine) -> None:
        """Add the images of a batch, which MONAI's evaluator has taken apart."""
        state: Any = engine.state
        self.update((state.batch, state.output))
        details = state.metric_details["val_f1"]
        threshold = getattr(self.network, "label_score_threshold", 0.0)
        details += [image.matches(threshold).f1 for image in self.images[-len(state.batch) :]]

    def update(self, output: tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]) -> None:
        """Add the items of a batch, and what the network made of them."""
        items, results = output
        found = getattr(self.network, "detections", [None] * len(items))
        for item, result, detection in zip(items, results, found, strict=True):
            self.images.append(score_image(item, result["pred"], detection))
        self.result = None

    def compute(self) -> dict[str, float]:
        """Return all results by name."""
        if self.result is None:
            self.result = self._compute(_gathered(self.images))
        return self.result

    def _compute(self, images: Sequence[ImageScores]) -> dict[str, float]:
        truth, detections = [image.truth for image in images], [image.detections for image in images]
        has_masks = all(mask is not None for each in truth for mask in each.masks)
        if self.choose_threshold and not any(len(each.boxes) for each in truth):
            raise ValueError(f"not one of the {len(truth)} images to validate on holds a cell: nothing can be chosen.")
        most = max((len(each.scores) for each in detections), default=0)
        result: dict[str, float] = {}
        for kind, of in (("mask", "segm"), ("box", "bbox")):
            if of == "segm" and not has_masks:
                continue
            values = self._average_precision(truth, detections, of, MAX_DETECTIONS)
            result |= {f"{kind}_{name.lower()}": value for name, value in values.items()}
            result[f"{kind}_ap_uncapped"] = values["AP"]
            if most > MAX_DETECTIONS[-1]:
                result[f"{kind}_ap_uncapped"] = self._average_precision(truth, detections, of, (most,))["AP"]
        if has_masks:
            if self.choose_threshold:
                self._choose(images)
            threshold = getattr(self.network, "label_score_threshold", 0.0)
            total = add_matches(image.matches(threshold) for image in images)
            result |= {"f1": total.f1, "accuracy": total.accuracy, "panoptic_quality": total.panoptic_quality}
            result |= {"threshold": threshold, "ap": result["mask_ap"]}
        else:
            labelled, agreeing = np.sum([image.n_points for image in images], axis=0)
            accuracy = agreeing / labelled if labelled else float("nan")
            result |= {"point_accuracy": accuracy, "ap": result["box_ap"]}
            if idist.get_rank() == 0:
                print(f"no masks here: AP is that of boxes; {accuracy:.4f} of {labelled} points agree", flush=True)
        return _Scores(result)

    def _average_precision(
        self, truth: Sequence[Instances], detections: Sequence[Detections], of: Any, max_detections: Sequence[int]
    ) -> dict[str, float]:
        if getattr(self.network, "detections", None) is not None:
            return average_precision(truth, detections, of=of, max_detections=max_detections)
        # Without scores all cells of all images are one point of the curve, which COCO does not know of.
        pairs = zip(truth, detections, strict=True)
        matches = [match_image(*pair, of=of, max_detections=max_detections[-1]) for pair in pairs]
        values = resampled_average_precision(matches, np.ones((1, len(matches)), dtype=int))
        return {name: float(value[0]) for name, value in values.items()}

    def _choose(self, images: Sequence[ImageScores]) -> None:
        f1 = np.array([add_matches(image.matches(threshold) for image in images).f1 for threshold in THRESHOLDS])
        if not np.isnan(f1).all():
            best = THRESHOLDS[np.flatnonzero(f1 == np.nanmax(f1))]
            choose: Any = self.network.choose_label_score_threshold
            choose(float(best[len(best) // 2]))


class _Scores(dict):
    """Results by name, NaN for those that the truth has no masks for."""

    def __missing__(self, key: str) -> float:
        return float("nan")


def score_image(
    item: Mapping[str, Any], pred: torch.Tensor, detection: Mapping[str, torch.Tensor] | None
) -> ImageScores:
    """Compare what was found in an image with what it holds.

    Args:
        item: with ``label`` and ``image_id``.
        pred: label map (1, H, W).
        detection: boxes, scores and masks; None where there is the label map alone.

    Raises:
        ValueError: the label map has another size than the image in its list.
    """
    truth = instances_of(item)
    size = (truth.height, truth.width)
    if tuple(pred.shape[-2:]) != size:
        raise ValueError(
            f"{item['label']}: image {item['image_id']} has {size[1]}x{size[0]} px there, its label map "
            f"{pred.shape[-1]}x{pred.shape[-2]}."
        )
    labels = np.asarray(pred.detach().cpu())[0]
    if detection is not None:
        # All of them; those from a higher score on are a part of this map.
        labels = label_map(detection, size, score_threshold=0.0).numpy()
    score_of, detections = detections_of(labels, detection)
    scores = np.array(list(score_of.values()))
    if any(mask is None for mask in truth.masks):
        return ImageScores(truth, detections, scores, np.zeros(len(scores)), _agreement(item, truth, detections))
    return ImageScores(truth, detections, scores, pair_with_masks(labels, truth.masks)[1], (0, 0))  # type: ignore[arg-type]


def detections_of(
    labels: np.ndarray, detection: Mapping[str, torch.Tensor] | None
) -> tuple[dict[int, float], Detections]:
    """Give the scores of the cells in a label map, and all that was found in the image.

    Args:
        labels: label map (H, W); with ``detection``, number n is its row n - 1.
        detection: boxes, scores and masks of a network; None where there is the label map alone, whose cells then have
            a score of 1 each.

    Returns:
        score by number, in rising order of the numbers, and the detections.
    """
    if detection is None:
        detections = as_detections(labels)
        numbers = np.unique(labels)
        return dict.fromkeys(numbers[numbers > 0].tolist(), 1.0), detections
    masks = run_lengths(detection, labels.shape[-2:])  # type: ignore[arg-type]
    detections = Detections(detection["boxes"].numpy(), detection["scores"].numpy(), masks)
    numbers = np.unique(labels)
    return {number: float(detections.scores[number - 1]) for number in numbers[numbers > 0].tolist()}, detections


def run_lengths(detection: Mapping[str, torch.Tensor], size: tuple[int, int]) -> list[dict[str, Any]]:
    """Encode the mask of each instance as run lengths, in time by its own pixels and not by the image's.

    Args:
        detection: ``boxes`` (K, 4) and ``masks`` (K, S, S) of an image.
        size: height and width of the image in px.
    """
    height, width = size
    encoded = []
    for pixels, top, left in paste_masks(detection, size):
        columns, rows = np.nonzero(pixels.T)
        positions = (columns + left) * height + rows + top
        encoded.append(encode_positions(positions, height=height, width=width))
    return encoded


def as_detections(labels: np.ndarray) -> Detections:
    """Take the cells of a label map (H, W) for detections with a score of 1 each, in the order of their numbers."""
    height, width = labels.shape
    down = labels.T.ravel()  # run lengths go down the columns
    positions = np.flatnonzero(down)
    positions = positions[np.argsort(down[positions], kind="stable")]
    cells = np.split(positions, np.flatnonzero(np.diff(down[positions])) + 1) if len(positions) else []
    masks = [encode_positions(cell, height=height, width=width) for cell in cells]
    boxes = np.array([mask_box(mask) for mask in masks]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Detections(boxes, np.ones(len(masks)), masks)


def _agreement(item: Mapping[str, Any], truth: Instances, detections: Detections) -> tuple[int, int]:
    """Count labelled points, and those that agree with the mask whose box overlaps best, by an IoU of at least 0.5."""
    labelled = agreeing = 0
    found = torch.from_numpy(np.asarray(detections.boxes, dtype=np.float64).reshape(-1, 4))
    overlaps = box_iou(torch.from_numpy(truth.boxes), found).numpy()
    for overlap, (pixels, labels) in zip(overlaps, points_of(item), strict=True):
        inside = np.zeros(len(labels), dtype=bool)
        if len(overlap) and overlap.max() >= 0.5:
            inside = decode_mask(detections.masks[int(overlap.argmax())])[pixels[:, 1], pixels[:, 0]]
        labelled += len(labels)
        agreeing += int((inside == (labels == 1)).sum())
    return labelled, agreeing


def _gathered(images: list[ImageScores]) -> list[ImageScores]:
    """Join the images of all processes."""
    if idist.get_world_size() == 1:
        return images
    parts: list[Any] = [None] * idist.get_world_size()
    torch.distributed.all_gather_object(parts, images)
    return [image for part in parts for image in part]
