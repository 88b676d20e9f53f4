import numpy as np
import pytest
import torch
from torchvision.transforms import ColorJitter
from torchvision.transforms import functional as F

from clinbundles.transforms.batch_augmentation import (
    RandBatchColorJitter,
    RandBatchColorJitterd,
    RandBatchFlipd,
    jitter,
)

RANGES = ((0.6, 1.4), (0.5, 1.5), (0.75, 1.25), (0.001, 0.01))


def images(number: int = 5) -> torch.Tensor:
    """Random colours, with a grey corner and a black and a white pixel, where hue is not defined."""
    image = torch.rand(number, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    image[:, :, :3, :3] = 0.4
    image[:, :, 5, 5], image[:, :, 6, 6] = 0.0, 1.0
    return image


@pytest.mark.parametrize("hue", [0.004, -0.4, 0.5])
def test_each_image_equals_what_torchvision_makes_of_it_with_the_same_numbers(hue: float) -> None:
    image = images()
    factors = torch.tensor([[0.7, 1.4, 0.8, hue], [1.3, 0.6, 1.2, hue]]).repeat(3, 1)[:5]
    orders = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [0, 1, 2, 3], [2, 0, 3, 1], [1, 3, 0, 2]])
    steps = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    out = jitter(image, factors, orders)
    for one, factor, order, jittered in zip(image, factors, orders, out, strict=True):
        for step in order.tolist():
            one = steps[step](one, float(factor[step]))
        torch.testing.assert_close(jittered, one, rtol=0, atol=2e-6)


def test_the_jittered_batch_is_distributed_as_torchvisions_images_are() -> None:
    """Means over many draws: each within four standard errors of the difference."""
    torch.manual_seed(0)
    image = images(1)
    ours = RandBatchColorJitter(*RANGES)
    ours.set_random_state(0)
    theirs = ColorJitter(*RANGES)
    batch = ours(image.expand(3000, -1, -1, -1))[:, :, 8, 2].numpy()
    single = np.stack([theirs(image[0])[:, 8, 2].numpy() for _ in range(3000)])
    for moment in (np.mean, np.std):
        error = np.sqrt(batch.var(0) / 3000 + single.var(0) / 3000)
        assert (abs(moment(batch, axis=0) - moment(single, axis=0)) < 4 * error).all()
    assert batch.std(0).min() > 0.05


def test_images_of_a_batch_are_flipped_one_by_one_together_with_their_labels() -> None:
    batch = {"image": images(400), "label": images(400)[:, :1].clone(), "name": "x"}
    flip = RandBatchFlipd(["image", "label"], prob=0.3, spatial_axis=1)
    flip.set_random_state(1)
    out = flip(batch)
    turned = (out["image"] == batch["image"].flip(3)).flatten(1).all(1)
    stayed = (out["image"] == batch["image"]).flatten(1).all(1)
    assert (turned ^ stayed).all()
    assert 0.2 < turned.float().mean() < 0.4
    assert torch.equal(out["label"], out["image"][:, :1])
    assert out["name"] == "x"
    assert torch.equal(batch["image"], images(400))


def test_a_seed_repeats_the_numbers_and_another_gives_others() -> None:
    transform = RandBatchColorJitterd("image", *RANGES)
    first, again, other = (transform.set_random_state(seed)({"image": images()})["image"] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_gives_what_the_cpu_gives() -> None:
    transform = RandBatchColorJitterd("image", *RANGES)
    results = [
        transform.set_random_state(0)({"image": images().to(device)})["image"].cpu() for device in ("cpu", "cuda")
    ]
    torch.testing.assert_close(*results, rtol=0, atol=1e-5)
