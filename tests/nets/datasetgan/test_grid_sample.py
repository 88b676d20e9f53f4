import pytest
import torch
from torch.nn import functional as F

from clinbundles.nets.datasetgan.grid_sample import grid_sample


@pytest.fixture
def images() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 2, 6, 7, dtype=torch.float64, requires_grad=True)


@pytest.fixture
def grid() -> torch.Tensor:
    """Places of which some lie outside."""
    return 2.4 * torch.rand(2, 5, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 1.2


def test_first_and_second_derivatives_are_those_of_differences(images: torch.Tensor, grid: torch.Tensor) -> None:
    assert torch.autograd.gradcheck(lambda values: grid_sample(values, grid), images)
    assert torch.autograd.gradgradcheck(lambda values: grid_sample(values, grid), images)


def test_values_and_gradients_are_those_of_pytorch(images: torch.Tensor, grid: torch.Tensor) -> None:
    ours = grid_sample(images, grid)
    theirs = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    assert torch.equal(ours, theirs)
    weights = torch.randn_like(ours)
    assert torch.equal(
        torch.autograd.grad((weights * ours).sum(), images)[0], torch.autograd.grad((weights * theirs).sum(), images)[0]
    )


def test_a_penalty_on_the_gradient_reaches_the_weights_behind_the_sampling(
    images: torch.Tensor, grid: torch.Tensor
) -> None:
    weight = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad((weight * grid_sample(images, grid)).sum(), images, create_graph=True)[0]
    gradient.square().sum().backward()
    # The gradient is proportional to the weight, so its square grows as 2 / weight times itself.
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(2 / 1.5 * gradient.square().sum().item())


def test_a_grid_that_asks_for_a_gradient_is_refused(images: torch.Tensor, grid: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="the grid asks for one"):
        grid_sample(images, grid.requires_grad_())
