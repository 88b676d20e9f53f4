import contextlib
import io
import time
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from monai.metrics.panoptic_quality import compute_panoptic_quality
from pycocotools import coco
from pycocotools.cocoeval import COCOeval
from scipy import ndimage

from clinbundles.engines.metrics.detection import (
    AREA_RANGES,
    Detections,
    Matches,
    add_matches,
    average_precision,
    match_label_maps,
)
from clinbundles.transforms.readers.coco import Instances, encode_mask

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl"]


def discs(centres: Sequence[tuple[float, float, float]], size: int = 128) -> list[np.ndarray]:
    """Masks of discs, given by row, column and radius."""
    rows, columns = np.mgrid[:size, :size]
    return [(rows - y) ** 2 + (columns - x) ** 2 <= r**2 for y, x, r in centres]


def box_of(mask: np.ndarray) -> list[float]:
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def true(masks: list[np.ndarray], image_id: int) -> Instances:
    boxes = np.array([box_of(m) for m in masks], dtype=float).reshape(-1, 4)
    return Instances(image_id, *(128, 128), boxes, [encode_mask(m) for m in masks])


def found(masks: list[np.ndarray], scores: Sequence[float]) -> Detections:
    boxes = np.array([box_of(m) for m in masks], dtype=float).reshape(-1, 4)
    return Detections(boxes, np.asarray(scores, dtype=float), [encode_mask(m) for m in masks])


@pytest.fixture(scope="module")
def images() -> tuple[list[Instances], list[Detections]]:
    """Five images of discs of all sizes; detections are off by some pixels, and some are missing or surplus."""
    generator = np.random.default_rng(0)
    truth, detections = [], []
    for number in range(5):
        places = np.column_stack([generator.uniform(10, 118, (30, 2)), generator.uniform(3, 20, 30)])
        moved = places + generator.normal(0, 1.5, places.shape)
        kept = discs([tuple(p) for p in moved[:26]]) + discs([tuple(p) for p in generator.uniform(20, 100, (4, 3)) / 2])
        kept = [mask for mask in kept if mask.any()]
        truth.append(true(discs([tuple(p) for p in places]), number))
        detections.append(found(kept, generator.random(len(kept))))
    return truth, detections


@pytest.mark.parametrize("of", ["bbox", "segm"])
@pytest.mark.parametrize("max_detections", [(100, 500, 2000), (1, 5, 10)])
def test_average_precision_is_that_of_pycocotools(
    images: tuple[list[Instances], list[Detections]], of: str, max_detections: tuple[int, ...]
) -> None:
    truth, detections = images
    ours = average_precision(truth, detections, of=of, max_detections=max_detections)
    with contextlib.redirect_stdout(io.StringIO()):
        listed = coco.COCO()
        annotations = []
        for image in truth:
            for (x1, y1, x2, y2), mask in zip(image.boxes.tolist(), image.masks, strict=True):
                pixels = int(coco.maskUtils.area({**mask, "counts": mask["counts"].encode()}))
                entry = {"image_id": image.image_id, "category_id": 1, "iscrowd": 0, "segmentation": mask}
                entry |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "id": len(annotations) + 1}
                annotations.append(entry | {"area": pixels if of == "segm" else (x2 - x1) * (y2 - y1)})
        listed.dataset = {
            "images": [{"id": image.image_id, "height": 128, "width": 128} for image in truth],
            "annotations": annotations,
            "categories": [{"id": 1}],
        }
        listed.createIndex()
        results = []
        for number, image in enumerate(detections):
            for (x1, y1, x2, y2), score, mask in zip(image.boxes.tolist(), image.scores, image.masks, strict=True):
                place = {"segmentation": mask} if of == "segm" else {"bbox": [x1, y1, x2 - x1, y2 - y1]}
                results.append({"image_id": number, "category_id": 1, "score": score, **place})
        oracle = COCOeval(listed, listed.loadRes(results), of)
        oracle.params.useCats, oracle.params.maxDets = 0, list(max_detections)
        oracle.params.areaRng, oracle.params.areaRngLbl = list(AREA_RANGES.values()), list(AREA_RANGES)
        oracle.evaluate()
        oracle.accumulate()
    precision = oracle.eval["precision"][:, :, 0, :, -1]
    expected = [precision[:, :, 0], precision[0, :, 0], precision[5, :, 0], *np.moveaxis(precision[:, :, 1:], 2, 0)]
    assert list(ours) == NAMES
    for name, values in zip(NAMES, expected, strict=True):
        assert ours[name] == pytest.approx(values[values > -1].mean(), abs=1e-6), name
    assert 0.05 < ours["AP"] < ours["AP50"] < 1


def test_perfect_detections_score_one_and_sizes_that_are_not_there_nan() -> None:
    masks = discs([(30, 30, 5), (80, 80, 6)])
    scores = average_precision([true(masks, 0)], [found(masks, [0.9, 0.8])], of="segm")
    assert scores["AP"] == scores["AP50"] == scores["APs"] == 1
    assert np.isnan([scores["APm"], scores["APl"]]).all()


def test_without_a_detection_all_scores_are_zero_and_what_does_not_fit_is_refused() -> None:
    masks = discs([(30, 30, 5)])
    assert average_precision([true(masks, 0)], [found([], [])], of="segm")["AP"] == 0
    with pytest.raises(ValueError, match="detections of 0 images, truth of 1"):
        average_precision([true(masks, 0)], [], of="segm")
    without = true(masks, 7)._replace(masks=[None])
    with pytest.raises(ValueError, match="image 7: an instance has no mask"):
        average_precision([without], [found(masks, [1.0])], of="segm")
    assert average_precision([without], [found(masks, [1.0])], of="bbox")["AP"] == 1


def cells(seed: int, size: int = 96) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(size, size)), 3)
    return ndimage.label(noise > 0.02)[0]


@pytest.mark.parametrize("seed", range(4))
def test_panoptic_quality_is_that_of_monai_on_small_maps(seed: int) -> None:
    truth = cells(seed)
    prediction = np.roll(truth, 1, axis=seed % 2) * (ndimage.gaussian_filter(truth * 1.0, 1) > 1)
    matches = match_label_maps(truth, prediction)
    tensors = torch.from_numpy(prediction), torch.from_numpy(truth)
    assert matches.panoptic_quality == pytest.approx(float(compute_panoptic_quality(*tensors)), abs=1e-5)
    counts = compute_panoptic_quality(*tensors, output_confusion_matrix=True)
    assert list(matches) == pytest.approx(counts.tolist(), abs=1e-4)
    assert matches.matched > 0
    assert matches.surplus + matches.missed > 0


def test_numbers_of_cells_mean_nothing_and_gaps_do_not_count() -> None:
    truth = cells(0)
    renamed = np.where(truth > 0, truth * 7 + 100, 0)
    number = int(truth.max())
    assert match_label_maps(truth, renamed) == Matches(number, 0, 0, number)
    full = np.ones((4, 4), dtype=np.uint16)
    assert match_label_maps(full, full) == Matches(1, 0, 0, 1.0)


def test_f1_accuracy_and_quality_follow_from_the_counts_of_all_images() -> None:
    total = add_matches([Matches(3, 1, 0, 2.4), Matches(1, 0, 2, 0.6)])
    assert total == Matches(4, 1, 2, 3.0)
    assert total.f1 == pytest.approx(8 / 11)
    assert total.accuracy == pytest.approx(4 / 7)
    assert total.panoptic_quality == pytest.approx(6 / 11)
    assert np.isnan([add_matches([]).f1, Matches().accuracy, Matches().panoptic_quality]).all()


def test_maps_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="label maps of"):
        match_label_maps(np.zeros((4, 4), int), np.zeros((4, 5), int))


def test_thousands_of_cells_are_matched_in_a_moment() -> None:
    truth = np.kron(np.arange(1, 3601).reshape(60, 60), np.ones((12, 12), dtype=int))
    start = time.perf_counter()
    assert match_label_maps(truth, truth).matched == 3600
    assert time.perf_counter() - start < 2
