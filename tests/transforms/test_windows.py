"""Windows for training, and stage 1 as an item of the sample."""

import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor
from monai.transforms import RandWeightedCropd

from clinbundles.transforms.windows import RandWindowsd, Stage1Probabilityd


def numbered() -> dict[str, torch.Tensor]:
    """Pixels with numbers of their own, and a label that repeats them."""
    image = MetaTensor(torch.arange(12.0 * 20).view(1, 12, 20))
    return {"image": image, "label": image.clone()}


def test_image_and_label_are_cut_at_the_same_place_and_windows_differ() -> None:
    transform = RandWindowsd(["image", "label"], (4, 6), 8)
    transform.set_random_state(0)
    windows = transform(numbered())
    assert len(windows) == 8
    for window in windows:
        assert type(window["image"]) is torch.Tensor
        assert window["image"].shape == (1, 4, 6)
        assert (window["image"] == window["label"]).all()
        assert (window["image"][0].diff(dim=1) == 1).all()
        assert (window["image"][0].diff(dim=0) == 20).all()
    assert len({float(window["image"][0, 0, 0]) for window in windows}) > 4


def test_every_place_is_as_likely_as_any_other_up_to_the_edges() -> None:
    transform = RandWindowsd("image", (11, 19), 4000)
    transform.set_random_state(0)
    corners = [float(window["image"][0, 0, 0]) for window in transform(numbered())]
    counts = [corners.count(corner) for corner in (0, 1, 20, 21)]
    assert sum(counts) == 4000
    assert min(counts) > 900


def test_with_weights_windows_lie_where_they_are_and_inside_the_image() -> None:
    data = numbered() | {"uncertainty": torch.full((1, 12, 20), 1e-6)}
    data["uncertainty"][0, 11, 19] = 1
    transform = RandWindowsd("image", (4, 6), 30, weight_key="uncertainty")
    transform.set_random_state(0)
    last = [float(window["image"][0, -1, -1]) for window in transform(data)]
    assert last.count(12 * 20 - 1) >= 29


def test_windows_of_a_batch_of_images_become_one_batch() -> None:
    dataset = Dataset([numbered(), numbered()], RandWindowsd(["image", "label"], (4, 4), 3))
    batch = next(iter(DataLoader(dataset, batch_size=2)))
    assert batch["image"].shape == (6, 1, 4, 4)


def test_a_window_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[13, 4\] pixels do not fit an image of \[12, 20\]"):
        RandWindowsd("image", (13, 4), 1)(numbered())


def test_weights_of_nothing_are_refused() -> None:
    data = numbered() | {"uncertainty": torch.zeros(1, 12, 20)}
    with pytest.raises(ValueError, match="uncertainty sums to 0"):
        RandWindowsd("image", (4, 4), 1, weight_key="uncertainty")(data)


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
