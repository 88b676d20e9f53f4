"""Two synthetic images with three cells each, and a network small enough to learn them by heart."""

from collections.abc import Callable

import pytest
import torch

from clinbundles.nets.cascade_mask_rcnn.network import CascadeMaskRCNN, cascade_mask_rcnn

SIDE = 64
# Middle and half sides in px of diamonds, which fill half of their boxes.
DIAMONDS = (
    ((17, 18, 12, 10), (46, 21, 10, 14), (30, 48, 15, 11)),
    ((21, 17, 13, 12), (49, 38, 10, 15), (18, 47, 12, 10)),
)


def cells(diamonds: tuple, supervision: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """A bright diamond for each (x, y, half width, half height), and eight points of each."""
    middles = torch.arange(SIDE) + 0.5
    y, x = torch.meshgrid(middles, middles, indexing="ij")
    masks = torch.stack([(x - cx).abs() / a + (y - cy).abs() / b <= 1 for cx, cy, a, b in diamonds])
    boxes = torch.tensor([(cx - a, cy - b, cx + a, cy + b) for cx, cy, a, b in diamonds], dtype=torch.float32)
    points = boxes[:, None, :2] + torch.rand(len(boxes), 8, 2) * (boxes[:, None, 2:] - boxes[:, None, :2])
    points = points.floor() + 0.5
    labels = torch.stack([mask[p[:, 1].long(), p[:, 0].long()] for mask, p in zip(masks, points, strict=True)])
    image = torch.where(masks.any(dim=0), 0.8, 0.2) + 0.02 * torch.randn(3, SIDE, SIDE)
    return image.clamp(0, 1), {
        "boxes": boxes,
        "points": points,
        "point_labels": labels.long(),
        "supervision": torch.full((len(boxes),), supervision),
        "masks": masks.to(torch.uint8),
    }


@pytest.fixture
def batch() -> Callable[..., tuple[torch.Tensor, list[dict[str, torch.Tensor]]]]:
    """Make both images, and their instances by one kind of supervision."""

    def make(supervision: int = 2) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
        torch.manual_seed(0)
        images, targets = zip(*(cells(diamonds, supervision) for diamonds in DIAMONDS), strict=True)
        return torch.stack(images), list(targets)

    return make


@pytest.fixture
def tiny_network() -> Callable[..., CascadeMaskRCNN]:
    """Make a narrow network with seeded weights."""

    def make(**options: object) -> CascadeMaskRCNN:
        torch.manual_seed(0)
        narrow = {"fpn_channels": 16, "box_units": 32, "mask_channels": 32, "mask_layers": 3}
        narrow |= {"box_rois": 64, "post_nms": (100, 100), "freeze_batch_norms": True}
        return cascade_mask_rcnn(**(narrow | options))  # type: ignore[arg-type]

    return make
