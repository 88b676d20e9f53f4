"""Tests of the scores of sets of images with cells; those of what was read from files are in tests/scripts/score."""

from collections.abc import Callable

import numpy as np
import pytest

from clinbundles.engines.metrics.detection import Detections
from clinbundles.engines.metrics.instance_sets import summarize_instances
from clinbundles.engines.metrics.instances import ImageScores
from clinbundles.transforms.readers.coco import Instances, encode_mask

SIZE = (40, 40)


def cell(x: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[5:15, x : x + 10] = True
    return mask


@pytest.fixture
def image() -> Callable[[bool], ImageScores]:
    """Make an image of two cells of which one is found, or both."""

    def make(both: bool) -> ImageScores:
        masks = [encode_mask(cell(2)), encode_mask(cell(20))]
        boxes = np.array([[2.0, 5, 12, 15], [20, 5, 30, 15]])
        n = 2 if both else 1
        truth = Instances(1, *SIZE, boxes, masks)
        return ImageScores(
            truth, Detections(boxes[:n], np.full(n, 0.9), masks[:n]), np.full(n, 0.9), np.ones(n), (0, 0)
        )

    return make


def test_metrics_of_instances_have_intervals_over_groups_and_what_is_no_score_has_none(image: Callable) -> None:
    images = [image(both=number % 3 > 0) for number in range(24)]
    metrics = {"val_ap": 0.8, "val_mask_ap": 0.8, "val_f1": 40 / 44, "val_threshold": 0.5, "val_mask_aps": float("nan")}
    summary = summarize_instances(metrics, images, [number // 2 for number in range(24)], threshold=0.5)
    assert (summary["images"], summary["groups"]) == (24, 12)
    scores = summary["scores"]
    assert scores.keys() == metrics.keys()
    assert scores["val_ap"] == scores["val_mask_ap"]
    assert scores["val_f1"]["low"] < scores["val_f1"]["value"] < scores["val_f1"]["high"] < 1
    assert scores["val_threshold"] == {"value": 0.5, "low": None, "high": None}
    alone = summarize_instances(metrics, images, 24 * [0], threshold=0.5)["scores"]
    assert alone["val_f1"]["low"] is None
