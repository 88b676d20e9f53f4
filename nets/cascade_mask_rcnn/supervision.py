"""The mask loss of each instance, by what is known of it: its mask, points, or its box alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn import functional as F

from .box_loss import box_loss, rgb_to_lab
from .point_loss import IGNORED, mask_loss, point_loss

BOX, POINTS, MASK = 0, 1, 2


def instance_losses(
    logits: torch.Tensor,
    boxes: Sequence[torch.Tensor],
    matches: Sequence[torch.Tensor],
    targets: Sequence[Mapping[str, torch.Tensor]],
    images: torch.Tensor,
    *,
    ramp: torch.Tensor | float = 1.0,
) -> dict[str, torch.Tensor]:
    """Return the mask losses of the proposals of a batch, each by the supervision of its instance.

    Each loss is the mean over the proposals it applies to, times their share among all. So a batch of one kind of
    supervision has the plain loss of that kind, and in a mixed one every proposal has the same weight.

    Args:
        logits: masks of the R proposals of all images (R, 1, S, S).
        boxes: the proposals of each image (R_b, 4) in px.
        matches: the instance of each (R_b,).
        targets: instances of each image; see :class:`.network.CascadeMaskRCNN`.
        images: RGB of 0 to 1 (B, 3, H, W), for the colours of instances known by their box alone.
        ramp: weight of the pairwise term of those.

    Returns:
        ``loss_mask``, ``loss_points``, ``loss_box_projection`` and ``loss_box_pairwise``; zeros that keep the graph
        where no proposal is of the kind.
    """
    supervision = _of_proposals("supervision", targets, matches)
    proposals = torch.cat(list(boxes))
    kinds = {kind: torch.where(supervision == kind)[0] for kind in (BOX, POINTS, MASK)}
    shares = {kind: len(rows) / max(len(supervision), 1) for kind, rows in kinds.items()}

    rows = kinds[MASK]
    of_mask = mask_loss(logits[rows], proposals[rows], _masks(targets, matches, images.shape[-2:]))

    rows = kinds[POINTS]
    points, labels = _points(targets, matches)
    of_points = point_loss(logits[rows], proposals[rows], points[rows], labels[rows])

    rows = kinds[BOX]
    lab = rgb_to_lab(images) if len(rows) > 0 else images
    numbers = torch.cat([torch.full_like(match, number) for number, match in enumerate(matches)])
    given = _of_proposals("boxes", targets, matches)
    projection, pairwise = box_loss(logits[rows], proposals[rows], given[rows], lab, numbers[rows])
    return {
        "loss_mask": of_mask * shares[MASK],
        "loss_points": of_points * shares[POINTS],
        "loss_box_projection": projection * shares[BOX],
        "loss_box_pairwise": pairwise * shares[BOX] * ramp,
    }


def _of_proposals(
    key: str, targets: Sequence[Mapping[str, torch.Tensor]], matches: Sequence[torch.Tensor]
) -> torch.Tensor:
    return torch.cat([target[key][match] for target, match in zip(targets, matches, strict=True)])


def _masks(
    targets: Sequence[Mapping[str, torch.Tensor]], matches: Sequence[torch.Tensor], size: Sequence[int]
) -> torch.Tensor:
    """Gather the masks (R, H, W) of the proposals that have one, and no others."""
    masks = [matches[0].new_zeros((0, *size), dtype=torch.uint8)]
    for target, match in zip(targets, matches, strict=True):
        match = match[target["supervision"][match] == MASK]
        if len(match) > 0:
            masks.append(target["masks"][match].to(torch.uint8))
    return torch.cat(masks)


def _points(
    targets: Sequence[Mapping[str, torch.Tensor]], matches: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gather points (R, P, 2) and labels (R, P) of all proposals; P is that of the image with most points."""
    count = max(target["points"].shape[1] for target in targets)
    points, labels = [], []
    for target, match in zip(targets, matches, strict=True):
        missing = count - target["points"].shape[1]
        points.append(F.pad(target["points"][match].float(), (0, 0, 0, missing)))
        labels.append(F.pad(target["point_labels"][match].long(), (0, missing), value=IGNORED))
    return torch.cat(points), torch.cat(labels)
