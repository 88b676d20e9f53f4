"""Every instance of a batch learns by its own supervision."""

import pytest
import torch

from clinbundles.nets.cascade_mask_rcnn.box_loss import box_loss, rgb_to_lab
from clinbundles.nets.cascade_mask_rcnn.point_loss import mask_loss, point_loss
from clinbundles.nets.cascade_mask_rcnn.supervision import BOX, MASK, POINTS, instance_losses

KINDS = (BOX, POINTS, MASK)
NAMES = ("loss_mask", "loss_points", "loss_box_projection", "loss_box_pairwise")


@pytest.fixture
def samples(batch) -> tuple:
    images, targets = batch()
    torch.manual_seed(1)
    matches = [torch.tensor([0, 1, 1, 2]), torch.tensor([2, 0])]
    boxes = [target["boxes"][match] + torch.rand(len(match), 4) for target, match in zip(targets, matches, strict=True)]
    return torch.randn(6, 1, 28, 28, requires_grad=True), boxes, matches, targets, images


def supervised(targets: list[dict], kinds: list[list[int]]) -> list[dict]:
    return [target | {"supervision": torch.tensor(kind)} for target, kind in zip(targets, kinds, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_one_kind_has_the_plain_loss_of_it(samples: tuple, kind: int) -> None:
    logits, boxes, matches, targets, images = samples
    losses = instance_losses(logits, boxes, matches, supervised(targets, [[kind] * 3] * 2), images, ramp=0.5)
    proposals = torch.cat(boxes)

    def of(key: str) -> torch.Tensor:
        return torch.cat([target[key][match] for target, match in zip(targets, matches, strict=True)])

    expected = dict.fromkeys(NAMES, torch.tensor(0.0))
    if kind == MASK:
        expected["loss_mask"] = mask_loss(logits, proposals, of("masks"))
    elif kind == POINTS:
        expected["loss_points"] = point_loss(logits, proposals, of("points"), of("point_labels"))
    else:
        numbers = torch.tensor([0, 0, 0, 0, 1, 1])
        projection, pairwise = box_loss(logits, proposals, of("boxes"), rgb_to_lab(images), numbers)
        expected |= {"loss_box_projection": projection, "loss_box_pairwise": 0.5 * pairwise}
    assert list(losses) == list(NAMES)
    for name in NAMES:
        torch.testing.assert_close(losses[name], expected[name])


def test_in_a_mixed_batch_every_proposal_has_the_same_weight(samples: tuple) -> None:
    logits, boxes, matches, targets, images = samples
    mixed = instance_losses(logits, boxes, matches, supervised(targets, [[MASK, POINTS, MASK], [MASK] * 3]), images)
    all_masks = torch.cat([target["masks"][match] for target, match in zip(targets, matches, strict=True)])
    by_mask, by_points = [0, 3, 4, 5], [1, 2]
    proposals = torch.cat(boxes)
    expected = mask_loss(logits[by_mask], proposals[by_mask], all_masks[by_mask]) * 4 / 6
    torch.testing.assert_close(mixed["loss_mask"], expected)
    match = matches[0][by_points]
    points, labels = targets[0]["points"][match], targets[0]["point_labels"][match]
    expected = point_loss(logits[by_points], proposals[by_points], points, labels) * 2 / 6
    torch.testing.assert_close(mixed["loss_points"], expected)


def test_the_mask_of_an_instance_with_points_teaches_nothing(samples: tuple) -> None:
    logits, boxes, matches, targets, images = samples
    by_points = supervised(targets, [[POINTS] * 3] * 2)
    without = [{key: value for key, value in target.items() if key != "masks"} for target in by_points]
    with_masks, without_masks = (
        {name: value.item() for name, value in instance_losses(logits, boxes, matches, each, images).items()}
        for each in (by_points, without)
    )
    assert with_masks == without_masks


def test_an_image_with_fewer_points_counts_the_missing_ones_as_ignored(samples: tuple) -> None:
    logits, boxes, matches, targets, images = samples
    targets = supervised(targets, [[POINTS] * 3] * 2)
    fewer = targets[1] | {"points": targets[1]["points"][:, :2], "point_labels": targets[1]["point_labels"][:, :2]}
    ignored = targets[1] | {"point_labels": targets[1]["point_labels"].clone()}
    ignored["point_labels"][:, 2:] = -1
    losses = [
        instance_losses(logits, boxes, matches, [targets[0], other], images)["loss_points"]
        for other in (fewer, ignored)
    ]
    torch.testing.assert_close(*losses)


def test_without_positive_proposals_all_losses_are_zeros_with_a_gradient(batch) -> None:
    images, targets = batch()
    logits = torch.randn(0, 1, 28, 28, requires_grad=True)
    none = [torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2
    losses = instance_losses(logits, *none, targets, images)
    sum(losses.values()).backward()
    assert all(loss.item() == 0 for loss in losses.values())
    assert logits.grad is not None
