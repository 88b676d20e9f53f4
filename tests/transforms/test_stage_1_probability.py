"""Stage 1 as an item of the sample."""

import pytest
import torch
from monai.data import CacheDataset, MetaTensor
from monai.transforms import RandWeightedCropd

from clinbundles.transforms.stage_1_probability import Stage1Probabilityd


def left_unsure(image: torch.Tensor) -> torch.Tensor:
    probability = torch.zeros_like(image[:, :1])
    probability[..., :8] = 0.5
    return probability


def test_an_image_gets_its_probability_and_the_entropy_of_that_and_keeps_its_meta_data() -> None:
    image = MetaTensor(torch.rand(3, 16, 16), meta={"filename_or_obj": "a.png"})
    sample = {"image": image}
    result = Stage1Probabilityd("image", left_unsure)(sample)
    assert set(sample) == {"image"}
    assert result["stage_1"].shape == result["uncertainty"].shape == (1, 16, 16)
    assert result["stage_1"].meta["filename_or_obj"] == "a.png"
    torch.testing.assert_close(result["uncertainty"][0, 0, [0, 15]].as_tensor(), torch.tensor([1.01, 0.01]))


def test_windows_are_drawn_where_stage_1_is_unsure() -> None:
    sample = Stage1Probabilityd("image", left_unsure)({"image": torch.rand(3, 16, 16)})
    crop = RandWeightedCropd("stage_1", w_key="uncertainty", spatial_size=(4, 4), num_samples=20)
    crop.set_random_state(0)
    unsure = sum(float(window["stage_1"].mean()) > 0 for window in crop(sample))
    assert unsure >= 19


def test_a_cache_asks_stage_1_once_an_image() -> None:
    calls = []

    def counting(image: torch.Tensor) -> torch.Tensor:
        calls.append(image.shape)
        return image[:, :1]

    dataset = CacheDataset([{"image": torch.rand(3, 8, 8)}], Stage1Probabilityd("image", counting), progress=False)
    for _ in range(3):
        dataset[0]
    assert calls == [(1, 3, 8, 8)]


def test_more_than_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3, 8, 8\).*one foreground"):
        Stage1Probabilityd("image", lambda image: image)({"image": torch.rand(3, 8, 8)})
