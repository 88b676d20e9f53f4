"""Losses of a mask that is known everywhere, or at a few points.

Boxes and points are x before y, in continuous pixel coordinates: pixel i covers [i, i + 1), its middle is at i + 0.5. A
network predicts the mask of an instance on a grid of S x S cells that divides its proposal, and both losses compare
where the truth is, and not where the grid is.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torchvision.ops import roi_align

IGNORED = -1


def positions_in(boxes: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Return where points (R, P, 2) lie in boxes (R, 4), as (R, P, 2): 0 is the box's first edge and 1 its last."""
    return (points - boxes[:, None, :2]) / (boxes[:, None, 2:] - boxes[:, None, :2])


def read_at(grids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Read grids (R, 1, S, S) bilinearly at positions (R, P, 2) of 0 to 1; beyond the grid's cells stand zeros."""
    values = F.grid_sample(grids, 2 * positions[:, :, None] - 1, align_corners=False)
    return values[:, 0, :, 0]


def point_loss(
    logits: torch.Tensor, boxes: torch.Tensor, points: torch.Tensor, point_labels: torch.Tensor
) -> torch.Tensor:
    """Return the binary cross-entropy of mask logits at points whose label is known.

    Points outside the proposal are ignored, as are those labelled -1. The mean divides by all R P of them, the ignored
    included, so that a proposal that sees few of its points weighs less.

    Args:
        logits: masks of R proposals (R, 1, S, S).
        boxes: the proposals (R, 4) in px.
        points: (R, P, 2) in px, those of each proposal's instance.
        point_labels: (R, P): 1 cell, 0 background, -1 ignored.

    Returns:
        The loss; without proposals or points a zero that keeps the graph.

    Source: Cheng et al., Pointly-Supervised Instance Segmentation, 2022, section 3.2, and its published code.
    """
    if point_labels.numel() == 0:
        return logits.sum() * 0
    positions = positions_in(boxes, points)
    counts = ((positions >= 0) & (positions <= 1)).all(dim=-1) & (point_labels != IGNORED)
    values = read_at(logits.float(), positions)
    labels = point_labels.clamp(min=0).to(values)
    return F.binary_cross_entropy_with_logits(values, labels, weight=counts.to(values))


def mask_targets(masks: torch.Tensor, boxes: torch.Tensor, size: int) -> torch.Tensor:
    """Return masks (R, H, W) seen on a grid of ``size`` x ``size`` in boxes (R, 4), as bool (R, size, size).

    A cell of the grid belongs to the mask that covers half of it or more. torchvision's ``project_masks_on_boxes``
    places pixels at whole numbers instead of their middles, half a pixel away from boxes and points: much for a cell
    of twenty pixels.
    """
    if len(boxes) == 0:
        return masks.new_zeros((0, size, size), dtype=torch.bool)
    numbers = torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)
    regions = torch.cat([numbers[:, None], boxes], dim=1)
    return roi_align(masks[:, None].to(boxes), regions, size, aligned=True)[:, 0] >= 0.5


def mask_loss(logits: torch.Tensor, boxes: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return the binary cross-entropy of mask logits against whole masks.

    Args:
        logits: masks of R proposals (R, 1, S, S).
        boxes: the proposals (R, 4) in px.
        masks: (R, H, W) of 0 and 1, those of each proposal's instance.

    Returns:
        The loss; without proposals a zero that keeps the graph.
    """
    if len(logits) == 0:
        return logits.sum() * 0
    targets = mask_targets(masks, boxes, logits.shape[-1])
    return F.binary_cross_entropy_with_logits(logits[:, 0].float(), targets.float())
