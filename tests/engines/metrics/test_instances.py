import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faster_coco_eval.core import mask as coco_mask
from ignite.engine import Engine
from torch import nn

from clinbundles.engines.metrics.detection import average_precision, match_label_maps
from clinbundles.engines.metrics.instances import THRESHOLDS, InstanceScores, as_detections, run_lengths, score_image
from clinbundles.nets.cascade_mask_rcnn.instances import label_map
from clinbundles.transforms.readers.coco import encode_mask, instances_of, mask_area, mask_box

SIZE = (48, 64)


class Finder(nn.Module):
    """What a trained network offers an evaluator."""

    def __init__(self) -> None:
        super().__init__()
        self.label_score_threshold = 0.5
        self.detections: list[dict[str, torch.Tensor]] = []

    def choose_label_score_threshold(self, threshold: float) -> None:
        self.label_score_threshold = threshold


def rectangle(x: int, y: int, width: int, height: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[y : y + height, x : x + width] = True
    return mask


CELLS = [rectangle(4, 4, 12, 10), rectangle(24, 6, 10, 14), rectangle(44, 30, 12, 12)]


@pytest.fixture
def item(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Write a list with one image of three cells, whose annotations have masks or points."""

    def make(**fields: list[Any]) -> dict[str, Any]:
        annotations = [
            {"id": k + 1, "image_id": 5, "category_id": 1, "bbox": list(mask_box(encode_mask(cell)))}
            | {name: values[k] for name, values in fields.items()}
            for k, cell in enumerate(CELLS)
        ]
        image = {"id": 5, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]}
        content = {"images": [image], "annotations": annotations, "categories": [{"id": 1, "name": "cell"}]}
        (tmp_path / "coco.json").write_text(json.dumps(content))
        return {"label": str(tmp_path / "coco.json"), "image_id": 5}

    return make


@pytest.fixture
def masks() -> dict[str, list[Any]]:
    return {"segmentation": [encode_mask(cell) for cell in CELLS]}


def detection(boxes: list[list[float]], scores: list[float]) -> dict[str, torch.Tensor]:
    return {"boxes": torch.tensor(boxes), "scores": torch.tensor(scores), "masks": torch.ones(len(boxes), 28, 28)}


# The first is exact, the second half of its cell and lower than what is no cell, the third a little off.
FOUND = detection(
    [[4, 4, 16, 14], [44, 31, 56, 43], [2, 30, 14, 44], [24, 6, 34, 12]],
    [0.9, 0.8, 0.4, 0.3],
)


def evaluated(network: Finder, items: list[dict], found: list[dict], **options: Any) -> tuple[dict[str, float], Engine]:
    """Run an engine as MONAI's evaluators do, with an item in each batch."""
    scores = InstanceScores(network, **options)

    def step(engine: Engine, place: int) -> None:
        network.detections = [found[place]]
        engine.state.batch = [items[place]]
        shown = label_map(found[place], SIZE, score_threshold=network.label_score_threshold)
        engine.state.output = [{"pred": shown[None]}]
        return engine.state.output

    engine = Engine(step)
    for name in ("mask_ap", "f1"):
        scores[name].attach(engine, f"val_{name}")
    engine.run(range(len(items)))
    return scores.compute(), engine


def test_the_scores_are_those_of_the_parts(item: Callable, masks: dict) -> None:
    one = item(**masks)
    result, engine = evaluated(Finder(), [one, one], [FOUND, FOUND])
    truth = instances_of(one)
    found = score_image(one, torch.zeros(1, *SIZE), FOUND).detections
    expected = average_precision([truth] * 2, [found] * 2, of="segm")
    assert {name: result[f"mask_{name.lower()}"] for name in expected} == pytest.approx(expected, nan_ok=True)
    assert result["mask_ap_uncapped"] == result["mask_ap"] == result["ap"]
    assert result["box_ap50"] == pytest.approx(average_precision([truth], [found], of="bbox")["AP50"])
    assert engine.state.metrics["val_mask_ap"] == result["mask_ap"]
    assert 0 < result["mask_ap"] < 1


def test_label_map_scores_equal_those_of_the_map_itself_at_every_threshold(item: Callable, masks: dict) -> None:
    truth = sum(k * cell for k, cell in enumerate(CELLS, start=1))
    image = score_image(item(**masks), torch.zeros(1, *SIZE), FOUND)
    counts = set()
    for threshold in THRESHOLDS:
        shown = label_map(FOUND, SIZE, score_threshold=float(threshold)).numpy()
        assert image.matches(threshold) == pytest.approx(match_label_maps(truth, shown))
        counts.add(image.matches(threshold))
    assert len(counts) > 2


def test_a_validation_chooses_the_threshold_of_the_highest_f1_and_tells_the_network(
    item: Callable, masks: dict
) -> None:
    network = Finder()
    result, _ = evaluated(network, [item(**masks)], [FOUND], choose_threshold=True)
    # Two cells are right above 0.4, and lower comes what is none.
    assert 0.4 < network.label_score_threshold <= 0.8
    assert result["threshold"] == network.label_score_threshold
    assert result["f1"] == pytest.approx(2 * 2 / (2 * 2 + 0 + 1))
    assert float(torch.tensor(network.label_score_threshold).half()) == network.label_score_threshold


def test_an_evaluation_keeps_the_threshold_and_lists_the_f1_of_each_image(item: Callable, masks: dict) -> None:
    network = Finder()
    network.label_score_threshold = 0.25
    result, engine = evaluated(network, [item(**masks)] * 2, [FOUND, detection([[0, 0, 4, 4]], [0.9])])
    assert network.label_score_threshold == 0.25
    assert engine.state.metric_details["val_f1"] == pytest.approx([2 * 2 / (2 * 2 + 2 + 1), 0])
    assert result["f1"] == pytest.approx(2 * 2 / (2 * 2 + 3 + 4))


def test_without_masks_boxes_decide_and_points_are_compared(item: Callable) -> None:
    points = {
        # in the cell and beside it, x before y
        "point_coords": [[[8, 8], [5, 5]], [[26, 8], [26, 18]], [[50, 40], [44, 30]]],
        "point_labels": [[1, 1], [1, 1], [1, 0]],
    }
    result, _ = evaluated(Finder(), [item(**points)], [FOUND])
    assert result["ap"] == result["box_ap"]
    assert np.isnan(result["mask_ap"])
    assert np.isnan(result["f1"])
    # Both points of the first; none of the second, whose best box overlaps by less than half; both of the third.
    assert result["point_accuracy"] == pytest.approx(4 / 6)


def test_a_network_that_only_labels_is_scored_by_its_map(item: Callable, masks: dict) -> None:
    one = item(**masks)
    shown = torch.from_numpy(7 * CELLS[0] + 3 * rectangle(24, 6, 10, 4))[None]
    image = score_image(one, shown, None)
    assert image.scores.tolist() == [1, 1]
    assert image.matches(0.0)[:3] == (1, 1, 2)
    boxes = as_detections(shown[0].numpy()).boxes
    assert boxes.tolist() == [[24, 6, 34, 10], [4, 4, 16, 14]]


def test_without_scores_the_order_of_images_does_not_matter(item: Callable, masks: dict) -> None:
    exact = torch.from_numpy(sum(number * cell for number, cell in enumerate(CELLS, start=1)))[None]
    wrong = torch.from_numpy(1 * rectangle(30, 20, 6, 6))[None]
    values = []
    for maps in ([exact, wrong], [wrong, exact]):
        scores = InstanceScores(torch.nn.Identity())
        scores.reset()
        scores.update(([item(**masks)] * 2, [{"pred": shown} for shown in maps]))
        values.append(scores.compute()["mask_ap"])
    found = len(CELLS)
    # One point of the curve: half of the cells found, and one cell that is none.
    assert values == pytest.approx([found / (found + 1) * 51 / 101] * 2)


def test_an_image_without_cells_and_one_without_detections(item: Callable, masks: dict, tmp_path: Path) -> None:
    one = item(**masks)
    content = json.loads((tmp_path / "coco.json").read_text())
    (tmp_path / "empty.json").write_text(json.dumps(content | {"annotations": []}))
    nothing = {name: values[:0] for name, values in FOUND.items()}
    result, _ = evaluated(Finder(), [one, one | {"label": str(tmp_path / "empty.json")}], [nothing, FOUND])
    assert result["mask_ap"] == 0
    assert result["f1"] == 0


def test_a_validation_without_any_cell_chooses_nothing_and_says_so(item: Callable, tmp_path: Path) -> None:
    one = item()
    content = json.loads((tmp_path / "coco.json").read_text())
    (tmp_path / "coco.json").write_text(json.dumps(content | {"annotations": []}))
    with pytest.raises(ValueError, match="not one of the 1 images to validate on holds a cell"):
        evaluated(Finder(), [one], [FOUND], choose_threshold=True)
    assert np.isnan(evaluated(Finder(), [one], [FOUND])[0]["mask_ap"])


def test_a_label_map_of_another_size_is_refused_by_name(item: Callable, masks: dict) -> None:
    with pytest.raises(ValueError, match=r"coco.json: image 5 has 64x48 px there, its label map 64x40"):
        score_image(item(**masks), torch.zeros(1, 40, 64), FOUND)


def test_run_lengths_are_those_of_coco_for_each_mask_in_its_place() -> None:
    boxes = [[4.0, 4, 16, 14], [50.0, 40, 64, 48], [70.0, 70, 80, 80]]  # the last has no pixel in the image
    encoded = json.loads(json.dumps(run_lengths(detection(boxes, [0.9, 0.8, 0.7]), SIZE)))
    for lengths, (x1, y1, x2, y2) in zip(encoded, boxes, strict=True):
        mask = np.zeros(SIZE, dtype=np.uint8, order="F")
        mask[int(y1) : int(y2), int(x1) : int(x2)] = 1
        assert lengths["size"] == list(SIZE)
        assert lengths["counts"].encode() == coco_mask.encode(mask)["counts"]
    assert run_lengths(detection([], []) | {"boxes": torch.zeros(0, 4)}, SIZE) == []


def test_run_lengths_of_thousands_of_cells_take_time_by_their_pixels() -> None:
    side = (torch.arange(1000) % 20 * 100.0)[:, None]
    start = time.perf_counter()
    encoded = run_lengths(
        detection(torch.cat([side, side, side + 20, side + 20], dim=1).tolist(), [1.0] * 1000), (2000, 2000)
    )
    assert time.perf_counter() - start < 2
    assert all(mask_area(lengths) == 400 for lengths in encoded[:20])


def test_thousands_of_cells_of_a_label_map_are_taken_in_a_moment() -> None:
    labels = np.kron(np.arange(2500).reshape(50, 50), np.ones((20, 20), dtype=np.int64))
    start = time.perf_counter()
    found = as_detections(labels)
    assert time.perf_counter() - start < 2
    assert len(found.masks) == 2499
    assert found.boxes[59].tolist() == [200, 20, 220, 40]
    assert mask_area(found.masks[59]) == 400
