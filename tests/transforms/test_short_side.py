import pytest
import torch
from monai.data import MetaTensor
from monai.utils import set_determinism

from clinbundles.transforms.points import move_points, pixel_matrix
from clinbundles.transforms.short_side import RandShortSided


def sample(height: int, width: int) -> dict[str, MetaTensor]:
    grid = torch.arange(width).repeat(height, 1)[None].float()
    return {"image": MetaTensor(grid.clone()), "masks": MetaTensor((grid > width // 2).int())}


@pytest.fixture
def scale() -> RandShortSided:
    transform = RandShortSided(["image", "masks"], (30, 40, 60), max_size=100, mode=("bilinear", "nearest-exact"))
    transform.set_random_state(0)
    return transform


def test_the_short_side_is_one_of_the_lengths_and_the_ratio_stays(scale: RandShortSided) -> None:
    seen = set()
    for _ in range(30):
        result = scale(sample(20, 30))
        height, width = result["image"].shape[1:]
        assert result["masks"].shape == result["image"].shape
        assert width == height * 3 // 2
        seen.add(height)
    assert seen == {30, 40, 60}


def test_a_long_side_is_no_longer_than_allowed(scale: RandShortSided) -> None:
    heights = {scale(sample(10, 40))["image"].shape[1:] for _ in range(20)}
    assert heights == {(25, 100)}


def test_masks_keep_whole_numbers_and_points_follow(scale: RandShortSided) -> None:
    result = scale(sample(20, 30))
    assert set(result["masks"].unique().tolist()) == {0, 1}
    factor = result["image"].shape[1] / 20
    points = torch.tensor([[0.0, 0.0], [12.0, 7.0], [30.0, 20.0]])
    assert torch.allclose(move_points(points, pixel_matrix(result["image"])), points.double() * factor, atol=1e-6)


def test_the_same_seed_draws_the_same_lengths() -> None:
    def lengths() -> list[int]:
        transform = RandShortSided("image", range(10, 90), max_size=1000)
        transform.set_random_state(3)
        return [transform(sample(20, 20))["image"].shape[1] for _ in range(5)]

    assert lengths() == lengths()
    assert len(set(lengths())) > 1
    set_determinism(None)


@pytest.mark.parametrize(("sides", "longest"), [((), 100), ((0,), 100), ((5,), 0)])
def test_lengths_below_a_pixel_are_refused(sides: tuple, longest: int) -> None:
    with pytest.raises(ValueError, match="expected lengths from 1 px on"):
        RandShortSided("image", sides, max_size=longest)
