"""The terms of boxes alone against their definitions in numpy, and what they want."""

import itertools

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from clinbundles.nets.cascade_mask_rcnn.box_loss import box_loss, profiles, projection_loss, rgb_to_lab

SIZE = 28
BOX = torch.tensor([[16.0, 16.0, 44.0, 44.0]])  # a px for each cell


def logits_of(mask: torch.Tensor) -> torch.Tensor:
    return (mask.float() * 2 - 1)[None, None] * 12


def disc(radius: float) -> torch.Tensor:
    middles = torch.arange(SIZE) + 0.5 - SIZE / 2
    return middles[:, None] ** 2 + middles**2 < radius**2


def image_of(mask: torch.Tensor) -> torch.Tensor:
    image = torch.full((1, 3, 60, 60), 0.1)
    image[:, :, 16:44, 16:44] += 0.8 * mask
    return image


def test_colours_are_those_of_scikit_image() -> None:
    image = np.random.default_rng(0).random((20, 30, 3))
    image[0, :3] = [[0, 0, 0], [1, 1, 1], [0.02, 0.02, 0.02]]
    result = rgb_to_lab(torch.from_numpy(image).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(result, rgb2lab(image), atol=2e-3)


def test_profiles_are_the_cells_whose_middle_the_box_holds() -> None:
    columns, rows = profiles(BOX, torch.tensor([[20.5, 16.0, 30.0, 50.0]]), SIZE, rim=1)
    assert torch.nonzero(columns[0])[:, 0].tolist() == list(range(5, 15))
    assert rows[0].tolist() == [False, *[True] * 29]


def test_the_projection_term_is_its_definition() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 1, SIZE, SIZE)
    columns, rows = torch.rand(4, SIZE) > 0.5, torch.rand(4, SIZE) > 0.5
    masks = 1 / (1 + np.exp(-logits[:, 0].numpy().astype(float)))
    expected = 0.0
    for mask, of_columns, of_rows in zip(masks, columns.numpy(), rows.numpy(), strict=True):
        for values, target in ((mask.max(axis=0), of_columns), (mask.max(axis=1), of_rows)):
            expected += 1 - 2 * (values * target).sum() / ((values**2).sum() + target.sum() + 1e-5)
    assert projection_loss(logits, columns, rows).item() == pytest.approx(expected / 4, rel=1e-5)


def expected_pairwise(logits: np.ndarray, lab: np.ndarray, box: np.ndarray, given: np.ndarray) -> float:
    """A proposal whose cells are pixels, pair by pair."""
    total, count = 0.0, 0
    left, top = int(box[0]), int(box[1])

    def is_inside(x: int, y: int) -> bool:
        return given[0] <= x + 0.5 < given[2] and given[1] <= y + 0.5 < given[3]

    def probability(x: int, y: int) -> float | None:
        if not (0 <= y < lab.shape[0] and 0 <= x < lab.shape[1]):
            return None
        if not is_inside(x, y):
            return 0.0
        if not (0 <= x - left < SIZE and 0 <= y - top < SIZE):
            return None
        return 1 / (1 + np.exp(-logits[y - top, x - left]))

    for y in range(top, top + SIZE):
        for x in range(left, left + SIZE):
            for dy, dx, steps in itertools.product((-1, 0, 1), (-1, 0, 1), (1, 2)):
                v, w = y + steps * dy, x + steps * dx
                p, q = probability(x, y), probability(w, v)
                if (dx, dy) == (0, 0) or p is None or q is None or not is_inside(x, y):
                    continue
                if np.exp(-np.linalg.norm(lab[y, x] - lab[v, w]) / 2) >= 0.3:
                    total -= np.log(p * q + (1 - p) * (1 - q))
                    count += 1
    return total / max(count, 1)


@pytest.mark.parametrize(
    "given", [(16.0, 16.0, 44.0, 44.0), (20.0, 12.0, 40.0, 52.0), (0.0, 20.0, 60.0, 41.0)], ids=str
)
def test_the_pairwise_term_is_its_definition(given: tuple[float, ...]) -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 1, SIZE, SIZE)
    lab = torch.randn(2, 3, 60, 60)
    boxes = torch.tensor([given])
    _, pairwise = box_loss(logits, BOX, boxes, lab, torch.tensor([1]))
    expected = expected_pairwise(
        logits[0, 0].numpy(), lab[1].permute(1, 2, 0).numpy(), BOX[0].numpy(), boxes[0].numpy()
    )
    assert pairwise.item() == pytest.approx(expected, rel=1e-3)


def test_at_the_edge_of_the_image_nothing_beyond_it_counts() -> None:
    torch.manual_seed(0)
    logits, lab = torch.randn(1, 1, SIZE, SIZE), torch.randn(1, 3, 28, 40)
    box = torch.tensor([[0.0, 0.0, 28.0, 28.0]])
    _, pairwise = box_loss(logits, box, box, lab, torch.tensor([0]))
    expected = expected_pairwise(logits[0, 0].numpy(), lab[0].permute(1, 2, 0).numpy(), box[0].numpy(), box[0].numpy())
    assert pairwise.item() == pytest.approx(expected, rel=1e-3)


def test_the_right_mask_costs_least() -> None:
    lab = rgb_to_lab(image_of(disc(14)))

    def total(mask: torch.Tensor) -> float:
        return sum(box_loss(logits_of(mask), BOX, BOX, lab, torch.tensor([0]))).item()

    everything = torch.ones(SIZE, SIZE, dtype=torch.bool)
    assert total(disc(14)) < 0.01
    checkerboard = disc(14) & ((torch.arange(SIZE)[:, None] + torch.arange(SIZE)) % 2 == 0)
    for wrong in (everything, ~everything, disc(11), ~disc(14), checkerboard):
        assert total(wrong) > 0.1


def test_without_proposals_both_terms_are_zeros_with_a_gradient() -> None:
    logits = torch.randn(0, 1, SIZE, SIZE, requires_grad=True)
    none = torch.zeros(0, 4)
    sum(box_loss(logits, none, none, torch.rand(1, 3, 9, 9), torch.zeros(0, dtype=torch.int64))).backward()
    assert logits.grad is not None
