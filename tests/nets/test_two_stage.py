"""Two stages against the same done step by step, and what is refused."""

from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import BasicUNet
from torch import nn
from torch.nn import functional as F

from clinbundles.nets.macs import count_macs
from clinbundles.nets.strided_unet import StridedUNet
from clinbundles.nets.two_stage import TwoStageInferer, TwoStageSegmenter
from clinbundles.nets.uncertain_windows import SCORES

NARROW = (4, 8, 8, 8, 8)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


class Contrast(nn.Module):
    """A network that one can do in one's head: bright is foreground."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.factor * (image[:, :1] - 0.5)


def two_unets(**options: Any) -> TwoStageSegmenter:
    torch.manual_seed(0)
    inputs = 3 + int(options.get("conditioned", False))
    return TwoStageSegmenter(StridedUNet(3, channels=NARROW), StridedUNet(inputs, channels=NARROW), **options).eval()


def test_result_equals_stage_1_stretched_with_the_least_certain_windows_replaced() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, 256, 256)
    network = two_unets()
    with torch.no_grad():
        result = network(image)
        small = F.avg_pool2d(image, 8)
        stretched = F.interpolate(network.low_net(small).sigmoid(), (256, 256), mode="bilinear")
        expected = stretched.clone()
        corners = [(i, j) for i in range(0, 256, 64) for j in range(0, 256, 64)]
        distance = {(i, j): float((stretched[..., i : i + 64, j : j + 64].mean() - 0.5).abs()) for i, j in corners}
        for i, j in sorted(corners, key=distance.__getitem__)[:4]:
            area = (..., slice(i, i + 64), slice(j, j + 64))
            expected[area] = network.high_net(image[area]).sigmoid()
    torch.testing.assert_close(result.sigmoid(), expected)


def test_every_image_of_a_batch_is_treated_as_if_it_were_alone() -> None:
    images = torch.rand(3, 3, 128, 128)
    network = two_unets(n_patches=2, n_select=1)
    with torch.no_grad():
        alone = torch.cat([network(image[None]) for image in images])
        torch.testing.assert_close(network(images), alone, atol=1e-4, rtol=1e-4)


def test_with_all_windows_refined_nothing_is_left_of_stage_1() -> None:
    images = torch.rand(2, 3, 128, 128)
    network = two_unets(n_patches=2, n_select=4)
    with torch.no_grad():
        before = network(images)
        nn.init.normal_(network.low_net.classify.weight)
        torch.testing.assert_close(network(images), before)


def test_no_window_leaves_stage_1_alone() -> None:
    image = torch.rand(1, 3, 64, 64)
    network = TwoStageSegmenter(Contrast(8), Contrast(99), scale=1, n_select=0, n_patches=2)
    torch.testing.assert_close(network(image).sigmoid(), Contrast(8)(image).sigmoid())


def test_a_threshold_refines_as_many_windows_as_each_image_needs() -> None:
    images = torch.zeros(3, 1, 128, 128)
    images[1, :, :64, :64] = 0.5
    images[2] = 0.5
    network = TwoStageSegmenter(Contrast(20), Contrast(0), n_patches=2, selector="threshold", threshold=0.25)
    refined = (network(images).abs() < 1e-3).float().mean(dim=(1, 2, 3))
    assert refined.tolist() == pytest.approx([0, 0.25, 1], abs=0.02)


def test_a_budget_buys_as_many_windows_as_it_pays_for() -> None:
    network = two_unets(n_patches=2, n_select=2)
    image = torch.rand(1, 3, 128, 128)
    stage_1 = count_macs(network.low_net, (1, 3, 32, 32))
    window = count_macs(network.high_net, (1, 3, 64, 64))
    same = two_unets(n_patches=2, selector="budget", budget_macs=stage_1 + 2.9 * window)
    with torch.no_grad():
        torch.testing.assert_close(same(image), network(image))
    poor = two_unets(n_patches=2, selector="budget", budget_macs=stage_1 - 1)
    with pytest.raises(ValueError, match="stage 1 alone takes"):
        poor(image)


def test_logits_favour_confident_foreground_and_probabilities_do_not() -> None:
    image = torch.ones(1, 1, 128, 128)
    image[..., :64, :64] = 0.35  # logit -3: probability 0.453 from one half, logit 3.5 from one half
    image[..., :64, 64:] = 0.665  # logit 3.3: probability 0.464 from one half, logit 2.8 from one half

    def refined(score_on: str) -> list[bool]:
        network = TwoStageSegmenter(Contrast(20), Contrast(0), n_patches=2, n_select=1, scale=1, score_on=score_on)
        result = network(image)
        return [bool(result[0, 0, 10, column].abs() < 1e-3) for column in (10, 100)]

    assert refined("probabilities") == [True, False]
    assert refined("logits") == [False, True]


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_sides_that_do_not_divide_are_padded_and_cropped(score: str, overlap: float) -> None:
    network = two_unets(score=score, overlap=overlap, blend="gaussian", n_patches=2)
    with torch.no_grad():
        assert network(torch.rand(2, 3, 100, 123)).shape == (2, 1, 100, 123)


def test_overlapping_windows_of_one_mind_change_nothing_but_where_they_lie() -> None:
    image = torch.rand(1, 1, 128, 128)
    network = TwoStageSegmenter(Contrast(0), Contrast(8), n_patches=2, n_select=9, overlap=0.5, blend="gaussian")
    torch.testing.assert_close(network(image), Contrast(8)(image), atol=1e-4, rtol=1e-4)


def test_stage_2_sees_the_stretched_probability_where_it_is_asked_to() -> None:
    class TakesTheLast(nn.Module):
        def forward(self, windows: torch.Tensor) -> torch.Tensor:
            return torch.logit(windows[:, -1:], eps=1e-6)

    image = torch.rand(2, 1, 128, 128)
    options: dict[str, Any] = {"n_patches": 2, "scale": 4}
    alone = TwoStageSegmenter(Contrast(4), Contrast(0), n_select=0, **options)(image)
    joined = TwoStageSegmenter(Contrast(4), TakesTheLast(), n_select=3, conditioned=True, **options)(image)
    torch.testing.assert_close(joined, alone, atol=1e-4, rtol=1e-4)


def test_windows_a_few_at_a_time_give_the_same() -> None:
    image = torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        for overlap in (0.0, 0.5):
            options: dict[str, Any] = {"n_patches": 2, "n_select": 3, "overlap": overlap, "conditioned": True}
            torch.testing.assert_close(
                two_unets(**options)(image), two_unets(patch_batch_size=2, **options)(image), atol=1e-4, rtol=1e-4
            )


def test_other_networks_classes_and_volumes_fit() -> None:
    low = BasicUNet(3, 1, 3, features=(4, 4, 4, 4, 4, 4)).eval()
    high = BasicUNet(3, 4, 3, features=(4, 4, 4, 4, 4, 4)).eval()
    volume = torch.rand(1, 1, 64, 60, 64)
    network = TwoStageSegmenter(low, high, n_patches=2, scale=2, score="margin", conditioned=True)
    with torch.no_grad():
        result = network(volume)
        assert result.shape == (1, 3, 64, 60, 64)
        torch.testing.assert_close(result.softmax(1).sum(1), torch.ones(1, 64, 60, 64))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
@pytest.mark.parametrize("options", [{}, {"overlap": 0.5, "conditioned": True}, {"selector": "threshold"}])
@pytest.mark.parametrize("device", DEVICES)
def test_torchscript_gives_the_same(options: dict[str, Any], device: str) -> None:
    network = two_unets(n_patches=2, **options).to(device)
    scripted = torch.jit.script(network)
    for shape in ((1, 3, 128, 128), (2, 3, 100, 128)):
        image = torch.rand(shape, device=device)
        with torch.no_grad():
            torch.testing.assert_close(scripted(image), network(image), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_stays_close(device: str) -> None:
    network = two_unets(n_patches=2, n_select=4).to(device)
    image = torch.rand(1, 3, 128, 128, device=device)
    with torch.no_grad():
        exact = network(image)
        with torch.autocast(device, torch.bfloat16):
            rounded = network(image)
    assert rounded.dtype == torch.float32
    assert (rounded.sigmoid() - exact.sigmoid()).abs().max() < 0.05


def test_torch_compile_gives_the_same() -> None:
    network = two_unets(n_patches=2)
    image = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        compiled = torch.compile(network, backend="eager")(image)
        torch.testing.assert_close(compiled, network(image), atol=1e-4, rtol=1e-4)


def test_the_inferer_takes_the_evaluators_network_as_stage_2_and_meta_tensors() -> None:
    network = two_unets(n_patches=2)
    image = MetaTensor(torch.rand(1, 3, 128, 128))
    with torch.no_grad():
        expected = network(image)
        inferer = TwoStageInferer(network.low_net, n_patches=2)
        torch.testing.assert_close(inferer(image, network.high_net), expected)
        both = TwoStageInferer(network.low_net, network.high_net, n_patches=2)
        torch.testing.assert_close(both(image, None), expected)
    with pytest.raises(ValueError, match="image alone"):
        inferer(image, network.high_net, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"score": "variance"}, "score is 'variance'"),
        ({"selector": "best"}, "selector is 'best'"),
        ({"n_patches": 0}, "n_patches is 0"),
        ({"n_patches": 2.5}, "n_patches is 2.5"),
        ({"n_select": -1}, "n_select is -1"),
        ({"overlap": 1.0}, "overlap is 1.0"),
        ({"selector": "budget"}, "needs budget_macs"),
        ({"score_on": "logits", "score": "entropy"}, "goes with score='mean'"),
        ({"patch_batch_size": 0}, "patch_batch_size is 0"),
    ],
)
def test_an_option_outside_its_range_is_refused_in_one_sentence(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TwoStageInferer(Contrast(1), **options)


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((1, 3, 256, 256), {"n_patches": 16}, "n_patches=16 does not fit an image side of 256"),
        ((1, 3, 128, 128), {"n_patches": 2, "n_select": 5}, "only 4 windows"),
        ((1, 3, 0, 128), {}, "not empty"),
        ((3, 128, 128), {}, r"\(B, C, H, W\)"),
        ((1, 3, 256, 256), {"n_patches": 4, "overlap": 0.3}, "0.5 does"),
    ],
)
def test_an_image_that_does_not_fit_is_refused_in_one_sentence(
    shape: tuple[int, ...], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        two_unets(**options)(torch.rand(shape))


def test_whole_numbers_and_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        two_unets()(torch.zeros(1, 3, 128, 128, dtype=torch.uint8))
    with pytest.raises(ValueError, match="stage 1 gave NaN"):
        two_unets()(torch.full((1, 3, 128, 128), torch.nan))
