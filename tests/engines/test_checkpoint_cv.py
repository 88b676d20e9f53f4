import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from clinbundles.engines.checkpoint_cv import CheckpointCV, cross_validate
from clinbundles.engines.metrics.class_overlap import ClassOverlap


def image(wrong: int) -> np.ndarray:
    """Ten pixels of each of two classes, some of the second called the first."""
    return np.array([[10, 0], [wrong, 10 - wrong]])


def miou(wrong: int) -> float:
    return (10 / (10 + wrong) + (10 - wrong) / 10) / 2


def test_each_fold_chooses_its_best_epoch_and_the_others_are_scored_with_it() -> None:
    # Epoch 1 is right on the first two images, epoch 2 on the last two.
    counts = np.array([[image(w) for w in (0, 0, 4, 4)], [image(w) for w in (2, 2, 0, 0)]])
    result = cross_validate(counts, 2)
    assert [fold["epoch"] for fold in result["folds"]] == [1, 2]
    assert [fold["miou"] for fold in result["folds"]] == pytest.approx([miou(4), miou(2)])
    assert result["miou"]["mean"] == pytest.approx((miou(4) + miou(2)) / 2)
    assert result["miou"]["std"] == pytest.approx(abs(miou(4) - miou(2)) / 2)
    assert result["folds"][0]["miou_foreground"] == pytest.approx(0.6)


def test_pixels_of_all_images_are_pooled_and_uneven_folds_hold_all() -> None:
    counts = np.array([[image(w) for w in range(7)]])
    result = cross_validate(counts, 5)
    assert [fold["images"] for fold in result["folds"]] == [2, 2, 1, 1, 1]
    pooled = counts[0, 2:].sum(axis=0)
    iou = [pooled[0, 0] / (pooled[0].sum() + pooled[1, 0]), pooled[1, 1] / pooled[1].sum()]
    assert result["folds"][0]["miou"] == pytest.approx(np.mean(iou))


def test_an_evaluator_that_runs_each_epoch_fills_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    overlap = ClassOverlap(["background", "cell"])
    keeper = CheckpointCV(tmp_path, overlap, folds=2)
    engine = Engine(lambda _, batch: batch)
    overlap.attach(engine, "overlap")
    keeper.attach(engine)
    truth = torch.tensor([[[0, 1]]])
    for pred in (torch.tensor([[[0, 0]]]), truth):
        engine.run([[{"pred": pred, "label": truth}]] * 3)
    keeper.write()
    written = json.loads((tmp_path / "checkpoint_cv.json").read_text())
    assert [fold["epoch"] for fold in written["folds"]] == [2, 2]
    assert written["miou"] == {"mean": 1.0, "std": 0.0}
    assert "miou 1.0000 ± 0.0000" in capsys.readouterr().out


def test_too_few_images_no_epoch_and_a_resumed_training_are_refused(tmp_path: Path) -> None:
    overlap = ClassOverlap(["background", "cell"])
    with pytest.raises(ValueError, match="3 test images are fewer than 5 folds"):
        cross_validate(np.array([[image(0)] * 3]), 5)
    with pytest.raises(ValueError, match="no epoch was evaluated"):
        CheckpointCV(tmp_path, overlap).write()
    with pytest.raises(ValueError, match="resume is true"):
        CheckpointCV(tmp_path, overlap, resume=True)
    with pytest.raises(ValueError, match="folds is 1"):
        CheckpointCV(tmp_path, overlap, folds=1)
