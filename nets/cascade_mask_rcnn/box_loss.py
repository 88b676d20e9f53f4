"""Losses of a mask of which nothing but its box is known.

The projection term wants the mask to reach all sides of the box and not beyond; the pairwise term wants neighbouring
pixels of nearly the same colour on the same side of its border.

Source: Tian et al., BoxInst: High-Performance Instance Segmentation with Box Annotations, 2021, section 3; the numbers
are those of its published configuration. There a mask covers the whole image. Here it covers a proposal, of S x S
cells, which may end where the box does: without what lies beyond, a full box would satisfy both terms. So the pairwise
term looks over the rim of the grid, and takes all cells outside the given box for background. And its neighbours there,
two steps away, tie no cell to the next one: the last layer of a mask head makes four cells of each, one without the
other, and fills every second one like a checkerboard. So here those one step away count too.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torchvision.ops import roi_align

SIMILARITY = 0.3  # least colour similarity of neighbours that are taken for the same side
RIM = 2  # steps to the farthest neighbours, in cells of the grid
IMPOSSIBLE = -100.0  # logarithm of a probability of 0 that can be added up
_NEIGHBOURS = [0, 1, 2, 3, 5, 6, 7, 8]  # of the 3 x 3, without the middle
_RGB_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)  # D65


def rgb_to_lab(images: torch.Tensor) -> torch.Tensor:
    """Return the CIELAB colours (B, 3, H, W) of sRGB images (B, 3, H, W) of 0 to 1; lightness is 0 to 100."""
    images = images.float()
    linear = torch.where(images > 0.04045, ((images.clamp(min=0) + 0.055) / 1.055) ** 2.4, images / 12.92)
    xyz = torch.einsum("cd,bdhw->bchw", images.new_tensor(_RGB_TO_XYZ), linear)
    xyz = xyz / images.new_tensor(_WHITE)[:, None, None]
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp(min=1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116).unbind(dim=1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def neighbours(values: torch.Tensor) -> torch.Tensor:
    """Return what stands at the 8 neighbours of each cell one step away, and two steps away, as (R, C, 16, S, S).

    Args:
        values: of a grid with a rim (R, C, S + 4, S + 4).
    """
    rows, channels, height, width = values.shape
    both = []
    for steps in range(1, RIM + 1):
        trimmed = values[..., RIM - steps : height - RIM + steps, RIM - steps : width - RIM + steps]
        columns = F.unfold(trimmed, 3, dilation=steps)
        both.append(columns.reshape(rows, channels, 9, height - 2 * RIM, width - 2 * RIM)[:, :, _NEIGHBOURS])
    return torch.cat(both, dim=2)


def without_rim(values: torch.Tensor) -> torch.Tensor:
    """Return (..., S, S) of a grid with a rim (..., S + 4, S + 4)."""
    return values[..., RIM:-RIM, RIM:-RIM]


def color_similarity(lab: torch.Tensor) -> torch.Tensor:
    """Return exp(-d / 2) for the colour distance d of each cell to its neighbours, (R, 16, S, S).

    Args:
        lab: colours on a grid with a rim (R, 3, S + 4, S + 4).
    """
    return torch.exp(-(neighbours(lab) - without_rim(lab)[:, :, None]).norm(dim=1) / 2)


def profiles(boxes: torch.Tensor, given: torch.Tensor, size: int, *, rim: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which columns and which rows of each proposal's grid have their middle in the given box.

    Args:
        boxes: proposals (R, 4) in px.
        given: a box for each, or the same for all, (R or 1, 4) in px.
        size: cells along a side of the grid, the rim apart.
        rim: cells beyond the proposal on each side.

    Returns:
        Columns and rows, bool (R, size + 2 rim).
    """
    middles = (torch.arange(-rim, size + rim, device=boxes.device) + 0.5) / size
    x = boxes[:, :1] + middles * (boxes[:, 2:3] - boxes[:, :1])
    y = boxes[:, 1:2] + middles * (boxes[:, 3:] - boxes[:, 1:2])
    columns = (x >= given[:, :1]) & (x < given[:, 2:3])
    rows = (y >= given[:, 1:2]) & (y < given[:, 3:])
    return columns, rows


def dice_distance(values: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return 1 - 2 sum(v t) / (sum(v^2) + sum(t^2)) of values and targets (R, S), as (R,)."""
    targets = targets.to(values)
    return 1 - 2 * (values * targets).sum(dim=1) / ((values**2).sum(dim=1) + (targets**2).sum(dim=1) + 1e-5)


def projection_loss(logits: torch.Tensor, columns: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the mean Dice distance of the largest probability in each column and row to the box's profiles.

    Args:
        logits: masks of R >= 1 proposals (R, 1, S, S).
        columns, rows: as :func:`profiles` gives them.
    """
    masks = logits[:, 0].float().sigmoid()
    return (dice_distance(masks.amax(dim=1), columns) + dice_distance(masks.amax(dim=2), rows)).mean()


def pairwise_loss(
    logits: torch.Tensor, similarity: torch.Tensor, inside: torch.Tensor, visible: torch.Tensor
) -> torch.Tensor:
    """Return the mean -log P(same side) over pairs of neighbours of like colour whose first is inside the box.

    Args:
        logits: masks of R proposals (R, 1, S, S).
        similarity: (R, 16, S, S), as :func:`color_similarity` gives it.
        inside: bool (R, S + 4, S + 4), the cells, and those of the rim, within the given box.
        visible: bool (R, S + 4, S + 4), those within the image. Those of the rim that lie in the box and are no part of
            the proposal do not count either.
    """
    logits = F.pad(logits.float(), (RIM,) * 4)
    inside, visible = inside[:, None], visible[:, None]
    predicted = F.pad(torch.ones_like(without_rim(inside)), (RIM,) * 4)
    cell = torch.where(inside, F.logsigmoid(logits), torch.full_like(logits, IMPOSSIBLE))
    background = torch.where(inside, F.logsigmoid(-logits), torch.zeros_like(logits))
    both_cell = without_rim(cell)[:, :, None] + neighbours(cell)
    both_background = without_rim(background)[:, :, None] + neighbours(background)
    same_side = torch.logaddexp(both_cell, both_background)[:, 0]
    counts = neighbours((visible & (predicted | ~inside)).to(logits))[:, 0] > 0
    weights = ((similarity >= SIMILARITY) & counts & without_rim(inside)).to(logits)
    return -(same_side * weights).sum() / weights.sum().clamp(min=1)


def box_loss(
    logits: torch.Tensor, boxes: torch.Tensor, given: torch.Tensor, lab: torch.Tensor, numbers: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the projection and the pairwise term of mask logits; the caller ramps the second up.

    Args:
        logits: masks of R proposals (R, 1, S, S).
        boxes: the proposals (R, 4) in px.
        given: boxes of their instances (R, 4) in px.
        lab: the images in CIELAB (B, 3, H, W).
        numbers: image of each proposal (R,).

    Returns:
        Both terms; without proposals zeros that keep the graph.
    """
    if len(logits) == 0:
        return logits.sum() * 0, logits.sum() * 0
    size = logits.shape[-1]
    columns, rows = profiles(boxes, given, size, rim=RIM)
    inside = rows[:, :, None] & columns[:, None, :]
    image = boxes.new_tensor([[0, 0, lab.shape[3], lab.shape[2]]])
    image_columns, image_rows = profiles(boxes, image, size, rim=RIM)
    visible = image_rows[:, :, None] & image_columns[:, None, :]
    beyond = (boxes[:, 2:] - boxes[:, :2]) * (RIM / size)
    regions = torch.cat([numbers[:, None].to(boxes), boxes[:, :2] - beyond, boxes[:, 2:] + beyond], dim=1)
    similarity = color_similarity(roi_align(lab, regions, size + 2 * RIM, aligned=True))
    projection = projection_loss(logits, columns[:, RIM:-RIM], rows[:, RIM:-RIM])
    return projection, pairwise_loss(logits, similarity, inside, visible)
