"""Tests of the intersection over union: against sets of pixels, pooled over images."""

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from clinbundles.engines.metrics.class_overlap import (
    OVERLAP_SCORES,
    ClassOverlap,
    count_pairs,
    intersection_over_union,
    scores_of,
    summarize_overlap,
)


def test_counts_have_the_truth_in_rows() -> None:
    truth, prediction = torch.tensor([[0, 1, 1, 2]]), torch.tensor([[0, 1, 2, 2]])
    assert count_pairs(prediction, truth, 3).tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]


def test_intersection_over_union_is_that_of_sets_of_pixels() -> None:
    generator = np.random.default_rng(0)
    truth, prediction = generator.integers(0, 3, (2, 500))
    iou = intersection_over_union(count_pairs(torch.tensor(prediction), torch.tensor(truth), 4))
    for k in range(3):
        a, b = set(np.flatnonzero(truth == k)), set(np.flatnonzero(prediction == k))
        assert iou[k] == pytest.approx(len(a & b) / len(a | b))
    assert np.isnan(iou[3])


def test_images_are_pooled_before_the_ratio_and_the_background_is_left_out_of_one_mean() -> None:
    overlap = ClassOverlap(["background", "body"])
    small = {"pred": torch.tensor([[0, 1]]), "label": torch.tensor([[1, 1]])}
    large = {"pred": torch.tensor([[1] * 8]), "label": torch.tensor([[1] * 8])}
    overlap.update([small, large])
    result = overlap.compute()
    assert result["iou_1"] == pytest.approx(9 / 10)
    assert result["iou_0"] == 0
    assert result["miou"] == pytest.approx(0.45)
    assert result["miou_foreground"] == pytest.approx(0.9)
    assert [image.sum() for image in overlap.images] == [2, 8]


def test_a_class_that_is_nowhere_counts_in_no_mean() -> None:
    assert scores_of(np.diag([5, 5, 0]))["miou"] == 1
    assert np.isnan(scores_of(np.zeros((2, 2), int))["miou"])


def test_it_is_a_metric_by_name_of_an_evaluator_that_takes_its_batches_apart() -> None:
    engine = Engine(lambda engine, batch: [{"pred": batch, "label": torch.zeros(1, 4)}])
    overlap = ClassOverlap(["background", "body"])
    overlap["miou"].attach(engine, "val_miou")
    engine.run([torch.tensor([[0.0, 0, 0, 1]]), torch.zeros(1, 4)])
    assert engine.state.metrics["val_miou"] == pytest.approx((7 / 8 + 0) / 2)


def test_values_that_are_no_class_and_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="classes from 0 to 2, expected 0 to 1"):
        count_pairs(torch.tensor([2]), torch.tensor([0]), 2)
    with pytest.raises(ValueError, match=r"a prediction of shape \(2,\) for a truth of \(3,\)"):
        count_pairs(torch.zeros(2), torch.zeros(3), 2)


def test_metrics_of_a_set_have_intervals_over_its_patients() -> None:
    generator = np.random.default_rng(0)
    rows = []
    for patient in range(12):
        both = generator.integers(40, 60, (3, 2))
        rows += [
            {"both_0": a, "both_1": b, "either_0": 60, "either_1": 80, "patient": patient} for a, b in both.tolist()
        ]
    metrics = summarize_overlap(rows, ["background", "lung"])
    assert (metrics["images"], metrics["groups"], metrics["unit"]) == (36, 12, "groups, such as patients")
    lung, foreground = metrics["classes"]["lung"]["iou"], metrics["scores"]["val_miou_foreground"]
    assert lung == foreground
    assert lung["value"] == pytest.approx(sum(row["both_1"] for row in rows) / (36 * 80), abs=1e-4)
    assert lung["low"] < lung["value"] < lung["high"]
    alone = summarize_overlap([{**row, "patient": 0} for row in rows], ["background", "lung"])
    assert alone["scores"]["val_miou"] == {**metrics["scores"]["val_miou"], "low": None, "high": None}
    unknown = summarize_overlap([{k: v for k, v in row.items() if k != "patient"} for row in rows], ["a", "b"])
    assert (unknown["groups"], unknown["unit"]) == (36, "images, as patients are not known")


def test_pooled_pixels_give_the_same_scores_as_counts_of_pairs() -> None:
    generator = np.random.default_rng(0)
    pairs = np.stack([generator.integers(0, 50, (4, 4)) for _ in range(3)])
    pairs[:, 2] = pairs[:, :, 2] = 0  # a class that is nowhere
    both = np.diagonal(pairs, axis1=1, axis2=2)
    counts = np.stack([both, pairs.sum(1) + pairs.sum(2) - both], axis=1)
    for one, pooled in zip(pairs, counts, strict=True):
        expected = scores_of(one)
        assert {name.removeprefix("val_"): float(score(pooled)) for name, score in OVERLAP_SCORES.items()} == (
            pytest.approx({name: expected[name] for name in ("miou", "miou_foreground")})
        )
    assert OVERLAP_SCORES["val_miou"](counts).shape == (3,)
    assert np.isnan(OVERLAP_SCORES["val_miou"](np.zeros((2, 3))))
