"""Tests of the cross-validation of the epoch: against plain loops, and as a handler of an evaluator."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from clinbundles.engines.datasetgan import checkpoint_cv
from clinbundles.engines.datasetgan.checkpoint_cv import CheckpointCV, cross_validate
from clinbundles.engines.folds import folds_in_order
from clinbundles.engines.metrics.class_overlap import ClassOverlap

NAMES = ["background", "body", "lung"]


def image(wrong: int) -> np.ndarray:
    """Ten pixels of each of two classes, some of the second called the first."""
    return np.array([[10, 0], [wrong, 10 - wrong]])


def miou(wrong: int) -> float:
    return (10 / (10 + wrong) + (10 - wrong) / 10) / 2


def test_each_fold_chooses_its_best_epoch_and_the_others_are_scored_with_it() -> None:
    # Epoch 3 is right on the first two images, epoch 6 on the last two.
    counts = np.array([[image(w) for w in (0, 0, 4, 4)], [image(w) for w in (2, 2, 0, 0)]])
    result = cross_validate(counts, folds_in_order(4, 2), [3, 6])
    assert [fold["epoch"] for fold in result["folds"]] == [3, 6]
    assert [fold["miou"] for fold in result["folds"]] == pytest.approx([miou(4), miou(2)])
    assert result["miou"]["mean"] == pytest.approx((miou(4) + miou(2)) / 2)
    assert result["miou"]["std"] == pytest.approx(abs(miou(4) - miou(2)) / 2)
    assert result["folds"][0]["miou_foreground"] == pytest.approx(0.6)


def pooled_iou(images: list[np.ndarray], classes: range) -> float:
    """Mean of the classes' pixels in both over those in either, of all images together."""
    values = []
    for c in classes:
        both = sum(int(each[c, c]) for each in images)
        values.append(both / (sum(int(each[c].sum() + each[:, c].sum()) for each in images) - both))
    return sum(values) / len(values)


def by_loops(counts: np.ndarray, n_folds: int, classes: range) -> list[float]:
    """Each fold in turn walks through the epochs and keeps the first best: the scores of all other images."""
    size, scores = counts.shape[1] // n_folds, []
    for k in range(n_folds):
        best, score = 0.0, 0.0
        for epoch in counts:
            own = [each for number, each in enumerate(epoch) if number // size == k]
            others = [each for number, each in enumerate(epoch) if number // size != k]
            if pooled_iou(own, range(len(NAMES))) > best:
                best, score = pooled_iou(own, range(len(NAMES))), pooled_iou(others, classes)
        scores.append(score)
    return scores


def test_images_that_are_left_over_choose_nothing_and_are_always_scored() -> None:
    counts = np.random.default_rng(0).integers(1, 60, (6, 23, 3, 3))
    result = cross_validate(counts, folds_in_order(23, 5), [1, 2, 3, 4, 5, 6])
    assert [fold["miou"] for fold in result["folds"]] == pytest.approx(by_loops(counts, 5, range(3)))
    assert [fold["miou_foreground"] for fold in result["folds"]] == pytest.approx(by_loops(counts, 5, range(1, 3)))
    assert {(fold["images"], fold["images_scored"]) for fold in result["folds"]} == {(4, 19)}
    assert len({fold["epoch"] for fold in result["folds"]}) > 1


def test_the_first_of_equally_good_epochs_is_chosen() -> None:
    counts = np.array([[image(w)] * 4 for w in (5, 1, 1)])
    assert [fold["epoch"] for fold in cross_validate(counts, folds_in_order(4, 2), [5, 6, 7])["folds"]] == [6, 6]


def items(n_images: int = 7, n_epochs: int = 4) -> list[dict[str, Any]]:
    """Images with a label map, the prediction of each epoch and a patient."""
    generator = np.random.default_rng(1)
    maps = torch.from_numpy(generator.integers(0, 3, (n_images, n_epochs + 1, 1, 8, 8)))
    return [{"label": one[0], "preds": one[1:], "group": f"p{k % 3}"} for k, one in enumerate(maps)]


def keeper_of(folder: Path, data: list[dict[str, Any]], **options: Any) -> tuple[CheckpointCV, Any]:
    """A keeper and the evaluator that it is attached to, which replays the predictions of an epoch."""
    overlap = ClassOverlap(NAMES)
    evaluator: Any = Engine(lambda engine, batch: [{**i, "pred": i["preds"][engine.state.number - 1]} for i in batch])
    evaluator.data_loader = SimpleNamespace(dataset=SimpleNamespace(data=data))
    overlap.attach(evaluator, "overlap")
    keeper = CheckpointCV(folder, overlap, **options)
    keeper.attach(evaluator)
    return keeper, evaluator


def run(evaluator: Any, data: list[dict[str, Any]], *epochs: int) -> None:
    for number in epochs:  # as MONAI's evaluators count, whose epoch is that of the training
        evaluator.state.number = number
        evaluator.state.epoch, evaluator.state.max_epochs = number - 1, number
        evaluator.state.epoch_length = 2
        evaluator.run([data[:4], data[4:]], max_epochs=number)


def test_an_evaluator_that_runs_each_epoch_fills_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = items()
    keeper, evaluator = keeper_of(tmp_path / "new", data, folds=3)
    run(evaluator, data, 2, 4)
    keeper.write()
    content = json.loads((tmp_path / "new" / "checkpoint_cv.json").read_text())
    counts = np.zeros((2, 7, 3, 3), int)
    for e, n, truth, pred in np.ndindex(counts.shape):
        counts[e, n, truth, pred] = int(((data[n]["label"] == truth) & (data[n]["preds"][2 * e + 1] == pred)).sum())
    for name, classes in (("miou", range(3)), ("miou_foreground", range(1, 3))):
        scores = by_loops(counts, 3, classes)
        assert [fold[name] for fold in content["folds"]] == pytest.approx(scores)
        deviation = (sum((score - sum(scores) / 3) ** 2 for score in scores) / 3) ** 0.5
        assert content[name] == pytest.approx({"mean": sum(scores) / 3, "std": deviation})
    assert (content["images"], content["epochs"], content["fold_by"]) == (7, [2, 4], "order")
    (said,) = capsys.readouterr().out.splitlines()
    chosen = ", ".join(str(fold["epoch"]) for fold in content["folds"])
    assert said.startswith(f"checkpoint_cv: mIoU {content['miou']['mean']:.4f} ± {content['miou']['std']:.4f}, without")
    assert f"folds by order of 2, 2, 2 images chose the epochs {chosen}" in said
    assert "selects epochs on test images" in said
    assert "selects epochs on test images" in content["protocol"]


def test_groups_are_not_cut(tmp_path: Path) -> None:
    data = items()
    keeper, evaluator = keeper_of(tmp_path, data, folds=3, fold_by="group")
    run(evaluator, data, 1)
    assert sorted(fold["images"] for fold in keeper.write()["folds"]) == [2, 2, 3]
    assert [{data[k]["group"] for k in fold} for fold in keeper.folds] == [
        {data[fold[0]]["group"]} for fold in keeper.folds
    ]


def test_a_resumed_training_writes_what_an_unbroken_one_writes(tmp_path: Path) -> None:
    data = items()
    whole, evaluator = keeper_of(tmp_path / "whole", data, folds=3)
    assert whole.state_dict() == {}
    run(evaluator, data, 1, 2)
    stream = io.BytesIO()
    torch.save(whole.state_dict(), stream)
    run(evaluator, data, 3)
    stream.seek(0)
    state = torch.load(stream, weights_only=True)
    resumed, evaluator = keeper_of(tmp_path / "resumed", data, folds=3)
    resumed.load_state_dict(state)
    run(evaluator, data, 3)
    assert resumed.write() == whole.write()
    assert resumed.path.read_text() == whole.path.read_text()
    other, _ = keeper_of(tmp_path, data[:6])
    with pytest.raises(ValueError, match="7 test images and 3 classes, this training has 6 and 3"):
        other.load_state_dict(state)


def test_a_score_that_is_no_number_is_null_in_the_file(tmp_path: Path) -> None:
    nothing = torch.zeros(1, 8, 8).long()
    data = [{"label": nothing, "preds": nothing[None], "group": f"p{k}"} for k in range(5)]
    keeper, evaluator = keeper_of(tmp_path, data)
    run(evaluator, data, 1)
    keeper.write()
    content = json.loads(keeper.path.read_text(), parse_constant=pytest.fail)
    assert (content["miou"]["mean"], content["miou_foreground"]["mean"]) == (1, None)


def test_what_cannot_be_folded_is_refused_before_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = items()
    nameless = [*data[:4], {key: data[4][key] for key in ("label", "preds")}]
    for sentence, of, options in (
        (r"folds is 8, more than there are images \(7\)", data, {"folds": 8}),
        (r"folds is 5, more than there are groups, such as patients \(3\)", data, {"fold_by": "group"}),
        ("fold_by is group, and test image 4 has no group", nameless, {"fold_by": "group"}),
        ("fold_by is 'patient', expected order or group", data, {"fold_by": "patient"}),
        ("folds is 1, expected", data, {"folds": 1}),
    ):
        with pytest.raises(ValueError, match=sentence):
            keeper_of(tmp_path, of, **options)
    keeper, _ = keeper_of(tmp_path, data)
    with pytest.raises(ValueError, match="no epoch was evaluated"):
        keeper.write()
    monkeypatch.setattr(checkpoint_cv.idist, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match="checkpoint_cv runs in one process"):
        keeper_of(tmp_path, data)
    assert list(tmp_path.iterdir()) == []
