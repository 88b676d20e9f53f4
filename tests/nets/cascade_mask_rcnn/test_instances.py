"""Pixels of instances against the dense read-out, and the label map and run lengths made of them."""

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import paste_masks_in_image

from clinbundles.nets.cascade_mask_rcnn.instances import label_map, label_map_by_torch, paste_mask, paste_masks
from clinbundles.nets.cascade_mask_rcnn.point_loss import mask_targets, read_at

SIZE = (50, 70)


@pytest.fixture
def detection() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    corners = torch.rand(12, 2) * torch.tensor([60.0, 40.0]) - 4  # some leave the image
    boxes = torch.cat([corners, corners + 2 + 25 * torch.rand(12, 2)], dim=1)
    masks = F.interpolate(torch.rand(12, 1, 7, 7), size=28, mode="bilinear")[:, 0]
    return {"boxes": boxes, "scores": torch.linspace(0.9, 0.2, 12), "masks": masks}


def dense(detection: dict[str, torch.Tensor]) -> torch.Tensor:
    """Every mask at every pixel's middle (K, H, W), as the point loss reads it."""
    rows, columns = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    points = torch.stack([columns, rows], dim=-1).reshape(1, -1, 2) + 0.5
    boxes = detection["boxes"].double()[:, None]
    positions = (points - boxes[..., :2]) / (boxes[..., 2:] - boxes[..., :2])
    values = read_at(detection["masks"][:, None].double(), positions)
    return (values * ((positions >= 0) & (positions <= 1)).all(dim=-1)).reshape(-1, *SIZE)


def test_pasted_values_are_those_of_the_point_loss(detection: dict[str, torch.Tensor]) -> None:
    for box, mask, expected in zip(detection["boxes"], detection["masks"], dense(detection), strict=True):
        values, top, left = paste_mask(mask.numpy(), box.double().numpy(), SIZE)
        image = np.zeros(SIZE)
        image[top : top + values.shape[0], left : left + values.shape[1]] = values
        np.testing.assert_allclose(image, expected.numpy(), atol=1e-5)


def test_a_mask_comes_back_nearer_than_by_whole_pixels() -> None:
    middles = torch.arange(64) + 0.5
    mask = ((middles[:, None] - 30.3) ** 2 + (middles - 29.6) ** 2 < 9.4**2)[None]
    boxes = torch.tensor([[20.7, 21.2, 39.4, 39.9]])  # a proposal, not the tight box
    grid = mask_targets(mask.float(), boxes, 28).float()

    def iou(result: torch.Tensor) -> float:
        return float((result & mask[0]).sum() / (result | mask[0]).sum())

    pixels, top, left = next(paste_masks({"boxes": boxes, "masks": grid}, (64, 64)))
    image = torch.zeros(64, 64, dtype=torch.bool)
    image[top : top + pixels.shape[0], left : left + pixels.shape[1]] = torch.from_numpy(pixels)
    whole_pixels = paste_masks_in_image(grid[:, None], boxes, (64, 64))[0, 0] >= 0.5
    assert iou(image) > 0.97
    assert iou(image) > iou(whole_pixels) + 0.03


def test_the_label_map_gives_overlaps_to_the_higher_score(detection: dict[str, torch.Tensor]) -> None:
    labels = label_map(detection, SIZE, score_threshold=0.5)
    shown = dense(detection)[detection["scores"] >= 0.5] >= 0.5
    expected = torch.zeros(SIZE, dtype=torch.int32)
    for number in range(len(shown), 0, -1):
        expected[shown[number - 1]] = number
    assert 1 < len(shown) < 12
    assert int(labels.max()) == len(shown)
    assert torch.equal(labels, expected)


def drawn_by_torch(found: dict[str, torch.Tensor], size: tuple[int, int], *, score_threshold: float) -> torch.Tensor:
    return label_map_by_torch(found["boxes"], found["scores"], found["masks"], *size, score_threshold)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_torch_draws_the_same_map(detection: dict[str, torch.Tensor], threshold: float) -> None:
    expected = label_map(detection, SIZE, score_threshold=threshold)
    assert (threshold < 1) == bool(expected.any())
    drawn = drawn_by_torch(detection, SIZE, score_threshold=threshold)
    assert drawn.dtype == expected.dtype
    assert torch.equal(drawn, expected)


@pytest.mark.parametrize("draw", [label_map, drawn_by_torch])
def test_an_instance_that_others_hide_by_more_than_half_is_left_out(draw: Callable[..., torch.Tensor]) -> None:
    boxes = torch.tensor([[10.0, 10, 30, 30], [15.0, 10, 35, 30], [29.0, 30, 39, 40], [22.0, 12, 36, 28]])
    found = {"boxes": boxes, "scores": torch.tensor([0.9, 0.8, 0.7, 0.6]), "masks": torch.ones(4, 28, 28)}
    labels = draw(found, (50, 50), score_threshold=0.0)
    # The second keeps a quarter. Without it the fourth keeps 6 of its 14 columns, which is less than half too.
    assert labels.unique().tolist() == [0, 1, 3]
    assert (labels == 1).sum() == 20 * 20
    found["boxes"][3, 0] = 24
    assert draw(found, (50, 50), score_threshold=0.0).unique().tolist() == [0, 1, 3, 4]


def test_nothing_detected_is_an_empty_map() -> None:
    nothing = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "masks": torch.zeros(0, 28, 28)}
    assert not label_map(nothing, SIZE, score_threshold=0.5).any()


@pytest.mark.parametrize("box", [(10.2, 10.2, 10.3, 10.3), (-9.0, 3.0, -1.0, 8.0), (69.8, 0.0, 80.0, 50.0)], ids=str)
def test_a_box_without_the_middle_of_a_pixel_has_no_pixels(box: tuple[float, ...]) -> None:
    values, _, _ = paste_mask(np.ones((28, 28), dtype=np.float32), np.array(box), SIZE)
    assert values.size == 0
    found = {"boxes": torch.tensor([box]), "scores": torch.ones(1), "masks": torch.ones(1, 28, 28)}
    assert not drawn_by_torch(found, SIZE, score_threshold=0.5).any()


def test_three_thousand_cells_become_a_label_map_in_seconds() -> None:
    torch.manual_seed(0)
    corners = torch.rand(3000, 2) * torch.tensor([680.0, 500.0])
    cells = {"boxes": torch.cat([corners, corners + 20], dim=1), "scores": torch.linspace(1, 0.6, 3000)}
    cells["masks"] = torch.ones(3000, 28, 28)
    start = time.perf_counter()
    labels = label_map(cells, (520, 704), score_threshold=0.5)
    assert time.perf_counter() - start < 5
    assert len(labels.unique()) > 500
