from collections.abc import Callable
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.engines import SupervisedTrainer
from torch import nn

from clinbundles.engines.training.instances import (
    ClipGradients,
    collate_instances,
    prepare_instances,
    total_loss,
)


def item(height: int, width: int, count: int) -> dict[str, Any]:
    return {
        "image": MetaTensor(torch.rand(3, height, width)),
        "image_id": 7,
        "boxes": torch.rand(count, 4),
        "points": torch.rand(count, 5, 2),
        "point_labels": torch.ones(count, 5),
        "supervision": torch.full((count,), 2),
        "masks": torch.ones(count, height, width, dtype=torch.uint8),
    }


def test_smaller_images_and_their_masks_are_padded_at_the_right_and_below() -> None:
    items = [item(8, 12, 3), item(10, 6, 0)]
    batch = collate_instances(items)
    assert type(batch["image"]) is torch.Tensor
    assert batch["image"].shape == (2, 3, 10, 12)
    assert torch.equal(batch["image"][0, :, :8], items[0]["image"].as_tensor())
    assert batch["image"][0, :, 8:].sum() == 0
    assert batch["image"][1, :, :, 6:].sum() == 0
    first, second = batch["instances"]
    assert first["masks"].shape == (3, 10, 12)
    assert first["masks"].sum() == 3 * 8 * 12
    assert second["masks"].shape == (0, 10, 12)
    assert torch.equal(first["boxes"], items[0]["boxes"])
    assert "image_id" not in first
    assert items[0]["masks"].shape == (3, 8, 12)


def test_the_network_gets_the_instances_beside_the_images() -> None:
    batch = collate_instances([item(8, 8, 2), item(8, 8, 1)])
    images, targets, arguments, options = prepare_instances(batch, "cpu")
    assert torch.equal(images, batch["image"])
    assert arguments == (targets,)
    assert options == {}
    assert [len(one["boxes"]) for one in targets] == [2, 1]


def test_losses_are_added_up_and_one_that_is_not_finite_is_named() -> None:
    losses = {"box": torch.tensor(1.5), "mask": torch.tensor(2.0)}
    assert total_loss(losses, None) == 3.5
    with pytest.raises(ValueError, match=r"loss is not finite \(box 1.5, mask nan\): a smaller learning_rate"):
        total_loss(losses | {"mask": torch.tensor(float("nan"))}, None)


class Parabola(nn.Module):
    """A loss of the gradient 2 x weight times the number of boxes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([30.0, 40.0]))

    def forward(self, images: torch.Tensor, targets: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return {"loss": (self.weight**2).sum() * len(targets[0]["boxes"])}


@pytest.fixture
def step() -> Callable[[float | None], torch.Tensor]:
    """Train one step of stochastic gradient descent at a rate of 1, and return what it moved by."""

    def run(max_norm: float | None) -> torch.Tensor:
        network = Parabola()
        trainer = SupervisedTrainer(
            device="cpu",
            max_epochs=1,
            train_data_loader=[collate_instances([item(8, 8, 1)])],
            network=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=1),
            loss_function=total_loss,
            prepare_batch=prepare_instances,
            decollate=False,
            train_handlers=[ClipGradients(max_norm)],
        )
        trainer.run()
        return network.weight.detach() - torch.tensor([30.0, 40.0])

    return run


def test_gradients_keep_their_direction_and_get_the_largest_norm(step: Callable) -> None:
    assert torch.allclose(step(5.0), torch.tensor([-3.0, -4.0]), rtol=1e-4)
    assert torch.allclose(step(1000.0), torch.tensor([-60.0, -80.0]))
    assert torch.allclose(step(None), torch.tensor([-60.0, -80.0]))


def test_a_largest_norm_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="max_norm is 0, expected a number above 0, or None"):
        ClipGradients(0)
