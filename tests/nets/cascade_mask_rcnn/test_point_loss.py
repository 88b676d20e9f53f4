"""The loss at points against the definition in numpy, and that of masks on the same grid."""

import numpy as np
import pytest
import torch

from clinbundles.nets.cascade_mask_rcnn.point_loss import mask_loss, mask_targets, point_loss


def bilinear(grid: np.ndarray, x: float, y: float) -> float:
    """Value at a position in px of the grid, whose cells have their middles at halves, with zeros around."""
    around = np.pad(grid, 1)
    x, y = x + 0.5, y + 0.5
    left, top = int(np.floor(x)), int(np.floor(y))
    u, v = x - left, y - top
    upper = (1 - u) * around[top, left] + u * around[top, left + 1]
    lower = (1 - u) * around[top + 1, left] + u * around[top + 1, left + 1]
    return (1 - v) * upper + v * lower


def expected_loss(logits: np.ndarray, boxes: np.ndarray, points: np.ndarray, labels: np.ndarray) -> float:
    total = 0.0
    for grid, (x1, y1, x2, y2), of_box, of_points in zip(logits, boxes, points, labels, strict=True):
        for (x, y), label in zip(of_box, of_points, strict=True):
            u, v = (x - x1) / (x2 - x1), (y - y1) / (y2 - y1)
            if label == -1 or not (0 <= u <= 1 and 0 <= v <= 1):
                continue
            value = bilinear(grid, u * grid.shape[1], v * grid.shape[0])
            total += np.logaddexp(0, -value if label == 1 else value)
    return total / labels.size


def test_the_loss_is_its_definition_and_divides_by_the_ignored_too() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(5, 28, 28)) * 3
    corners = generator.uniform(0, 50, size=(5, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(5, 40, size=(5, 2))], axis=1)
    inwards = generator.uniform(-0.2, 1.2, size=(5, 9, 2))  # some lie outside
    points = boxes[:, None, :2] + inwards * (boxes[:, None, 2:] - boxes[:, None, :2])
    labels = generator.integers(-1, 2, size=(5, 9))
    tensors = (torch.tensor(values, dtype=torch.float32) for values in (logits[:, None], boxes, points))
    loss = point_loss(*tensors, torch.tensor(labels))
    assert loss.item() == pytest.approx(expected_loss(logits, boxes, points, labels), rel=1e-5)


def test_a_point_in_the_middle_of_a_cell_reads_that_cell_alone() -> None:
    logits = torch.zeros(1, 1, 28, 28, requires_grad=True)
    boxes = torch.tensor([[10.0, 20.0, 38.0, 48.0]])
    point_loss(logits, boxes, torch.tensor([[[13.5, 25.5]]]), torch.tensor([[1]])).backward()
    assert torch.nonzero(logits.grad).tolist() == [[0, 0, 5, 3]]


@pytest.mark.parametrize(("rows", "count"), [(3, 0), (0, 4)])
def test_without_points_or_proposals_the_loss_is_a_zero_with_a_gradient(rows: int, count: int) -> None:
    logits = torch.randn(rows, 1, 28, 28, requires_grad=True)
    loss = point_loss(logits, torch.rand(rows, 4), torch.rand(rows, count, 2), torch.ones(rows, count))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None


def test_a_mask_on_the_grid_of_its_own_pixels_is_itself() -> None:
    mask = torch.zeros(2, 60, 60, dtype=torch.uint8)
    mask[1, 20:48, 10:38] = (torch.rand(28, 28) > 0.5).to(torch.uint8)
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [10.0, 20.0, 38.0, 48.0]])
    targets = mask_targets(mask, boxes, 28)
    assert not targets[0].any()
    torch.testing.assert_close(targets[1], mask[1, 20:48, 10:38].bool())


def test_masks_and_a_point_in_every_cell_are_the_same_supervision() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 1, 28, 28)
    masks = (torch.rand(1, 28, 28) > 0.5).to(torch.uint8)
    boxes = torch.tensor([[0.0, 0.0, 28.0, 28.0]])
    rows, columns = torch.meshgrid(torch.arange(28), torch.arange(28), indexing="ij")
    points = torch.stack([columns, rows], dim=-1).reshape(1, -1, 2) + 0.5
    by_points = point_loss(logits, boxes, points, masks.reshape(1, -1))
    torch.testing.assert_close(mask_loss(logits, boxes, masks), by_points)


def test_without_proposals_the_loss_of_masks_is_a_zero_with_a_gradient() -> None:
    logits = torch.randn(0, 1, 28, 28, requires_grad=True)
    loss = mask_loss(logits, torch.rand(0, 4), torch.zeros(0, 9, 9))
    loss.backward()
    assert loss.item() == 0
