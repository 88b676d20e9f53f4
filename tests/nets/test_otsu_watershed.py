import numpy as np
import pytest
import torch

from clinbundles.nets.otsu_watershed import OtsuWatershed


def discs(*places: tuple[int, int, int]) -> torch.Tensor:
    rows, columns = np.mgrid[:80, :100]
    image = np.full((80, 100), 0.1)
    for y, x, radius in places:
        image[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = 0.8
    return torch.from_numpy(image).float().repeat(3, 1, 1)


@pytest.mark.parametrize("bright", [True, False])
def test_discs_are_found_bright_on_dark_and_dark_on_bright(bright: bool) -> None:
    image = discs((20, 20, 10), (60, 70, 12))
    labels = OtsuWatershed()(image[None] if bright else 1 - image[None])
    assert labels.shape == (1, 1, 80, 100)
    assert labels.dtype == torch.int32
    numbers, areas = np.unique(labels, return_counts=True)
    assert numbers.tolist() == [0, 1, 2]
    assert sorted(areas[1:]) == pytest.approx([np.pi * 100, np.pi * 144], rel=0.1)


def test_touching_discs_are_parted_and_specks_left_out() -> None:
    labels = OtsuWatershed()(discs((40, 30, 12), (40, 50, 12), (10, 90, 1))[None])[0, 0]
    assert len(labels.unique()) == 3
    assert labels[40, 30] != labels[40, 50] != 0


def test_each_image_of_a_batch_has_its_own_threshold_and_an_even_one_no_cell() -> None:
    batch = torch.stack([discs((20, 20, 10)), torch.full((3, 80, 100), 0.4), discs((20, 20, 10)) * 0.1])
    labels = OtsuWatershed()(batch)
    assert labels.amax(dim=(1, 2, 3)).tolist() == [1, 0, 1]


def test_there_are_no_weights() -> None:
    assert OtsuWatershed().state_dict() == {}
