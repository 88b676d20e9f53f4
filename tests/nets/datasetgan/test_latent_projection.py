"""Tests of the projection: latents of generated images are found again, and only the latents learn."""

import pytest
import torch

from clinbundles.nets.datasetgan.generator import Generator
from clinbundles.nets.datasetgan.latent_projection import LatentRenderer, ProjectedLatents, ProjectionLoss


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(0)
    generator = Generator(16, 1, 8, 8, channel_base=128, channel_max=8).eval()
    with torch.no_grad():
        generator.mapping.average.copy_(generator.mapping(torch.randn(256, 8)).mean(dim=0))
    return generator


def test_latents_that_make_given_images_are_found(generator: Generator) -> None:
    targets = generator(torch.randn(3, 8), noise="const").detach()
    renderer = LatentRenderer(ProjectedLatents(3, generator.n_ws, 8), generator)
    loss, numbers = ProjectionLoss(), torch.arange(3)
    weights = [p.clone() for p in generator.parameters()]
    learned = [p for p in renderer.parameters() if p.requires_grad]
    assert [tuple(p.shape) for p in learned] == [(3, generator.n_ws, 8)]
    optimizer = torch.optim.Adam(learned, 0.1)
    first = float(loss(renderer(numbers), targets).detach())
    for _ in range(60):
        optimizer.zero_grad()
        loss(renderer(numbers), targets).backward()
        optimizer.step()
    assert float(loss(renderer(numbers), targets).detach()) < first / 10
    assert all(torch.equal(a, b) for a, b in zip(weights, generator.parameters(), strict=True))


def test_the_latents_begin_at_the_mean_of_w_and_are_measured_in_its_deviations(generator: Generator) -> None:
    latents = ProjectedLatents(2, generator.n_ws, 8)
    renderer = LatentRenderer(latents, generator)
    rendered = renderer(torch.tensor([1, 0]))
    mean = generator.mapping.average.expand(2, generator.n_ws, -1)
    assert torch.equal(rendered["image"], generator.synthesize(mean, noise="const"))
    assert rendered["distance"].tolist() == [0, 0]
    with torch.no_grad():
        latents.offsets[0] += 2 * renderer.spread
    assert renderer(torch.tensor([1, 0]))["distance"].tolist() == pytest.approx([0, 4], rel=1e-4)


def test_the_loss_adds_the_differences_of_averaged_squares() -> None:
    rendered = {"image": torch.zeros(1, 1, 4, 4), "distance": torch.tensor([5.0])}
    checkered = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)[None, None]
    assert float(ProjectionLoss((1, 2, 4), 0)(rendered, checkered)) == 1
    assert float(ProjectionLoss((1, 2, 4), 0)(rendered, torch.ones(1, 1, 4, 4))) == 3
    assert float(ProjectionLoss((1,), 0.1)(rendered, torch.zeros(1, 1, 4, 4))) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="latent_weight is -1, expected 0 or more"):
        ProjectionLoss((1,), -1)
