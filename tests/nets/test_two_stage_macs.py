"""What the two stages cost."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from clinbundles.nets.macs import count_macs
from clinbundles.nets.strided_unet import StridedUNet
from clinbundles.nets.two_stage import TwoStageMacs, TwoStageSegmenter, two_stage_macs


@pytest.fixture(scope="module")
def paper_net() -> StridedUNet:
    return StridedUNet()


@pytest.fixture(scope="module")
def grey_net() -> StridedUNet:
    return StridedUNet(in_channels=1)


def segmenter(network: nn.Module, **options) -> TwoStageSegmenter:
    return TwoStageSegmenter(network, network, **options)


@pytest.mark.parametrize(
    ("channels", "side", "printed"), [(3, 768, 3.746), (3, 512, 1.665), (1, 512, 1.662), (3, 256, 0.416)]
)
def test_stage_1_costs_what_the_authors_code_prints(
    channels: int, side: int, printed: float, paper_net: nn.Module, grey_net: nn.Module
) -> None:
    two_stage = segmenter(paper_net if channels == 3 else grey_net, n_patches=2)
    macs = two_stage_macs(two_stage, (channels, side, side), paper_formula=True)
    assert 2 * macs.stage_1 / 1e9 == pytest.approx(printed, abs=0.0005)
    assert macs.stage_1 * 64 == macs.baseline


@pytest.mark.parametrize("paper_formula", [False, True])
@pytest.mark.parametrize(("n_patches", "ratio"), [(2, 0.515625), (4, 0.265625), (8, 0.140625), (16, 0.078125)])
def test_both_stages_cost_one_64th_plus_one_in_n_patches_of_the_whole_image(
    n_patches: int, ratio: float, paper_formula: bool, paper_net: nn.Module
) -> None:
    macs = two_stage_macs(segmenter(paper_net, n_patches=n_patches), (3, 512, 512), paper_formula=paper_formula)
    assert macs.ratio == 1 / 64 + 1 / n_patches == ratio
    assert macs.total == macs.stage_1 + macs.stage_2


@pytest.mark.parametrize(
    ("options", "image_shape"),
    [
        ({}, (3, 64, 96)),
        ({"n_select": 3}, (3, 64, 64)),
        ({"n_select": 0}, (3, 64, 64)),
        ({"overlap": 0.5, "n_select": 5}, (3, 64, 64)),
        ({"scale": 4, "divisor": 8}, (3, 61, 75)),
        ({}, (3, 16, 16, 32)),
    ],
)
@pytest.mark.parametrize("conditioned", [False, True])
def test_a_real_two_stage_forward_costs_what_is_foretold(options: dict, image_shape: tuple, conditioned: bool) -> None:
    torch.manual_seed(0)
    spatial_dims = len(image_shape) - 1
    low_net = StridedUNet(channels=(2, 4, 8), spatial_dims=spatial_dims)
    high_net = StridedUNet(in_channels=3 + conditioned, channels=(4, 4, 8), spatial_dims=spatial_dims)
    two_stage = TwoStageSegmenter(
        low_net, high_net, **{"n_patches": 2, "divisor": 8, "scale": 2, "conditioned": conditioned, **options}
    )
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        two_stage(torch.rand(1, *image_shape))
    assert two_stage_macs(two_stage, image_shape).total == counter.get_total_flops() // 2


def test_the_conditioned_network_sees_every_class_of_stage_1_and_is_compared_with_the_baseline_given() -> None:
    low_net = StridedUNet(out_channels=3, channels=(2, 4))
    high_net = StridedUNet(in_channels=6, out_channels=3, channels=(2, 4))
    two_stage = TwoStageSegmenter(low_net, high_net, n_patches=2, divisor=4, scale=2, conditioned=True)
    own, other = two_stage_macs(two_stage, (3, 32, 32)), two_stage_macs(two_stage, (3, 32, 32), baseline=low_net)
    assert own.stage_2 == 2 * count_macs(high_net, (1, 6, 16, 16))
    assert own.baseline == count_macs(high_net, (1, 6, 32, 32))
    assert other == TwoStageMacs(own.stage_1, own.stage_2, count_macs(low_net, (1, 3, 32, 32)))


def test_a_budget_is_used_up_and_not_exceeded() -> None:
    network = StridedUNet(channels=(2, 4))
    options = {"n_patches": 4, "divisor": 4, "scale": 4}
    three = two_stage_macs(segmenter(network, n_select=3, **options), (3, 32, 32))
    budget = segmenter(network, selector="budget", budget_macs=three.total + 1, **options)
    assert two_stage_macs(budget, (3, 32, 32)) == three
    rich = segmenter(network, selector="budget", budget_macs=1e12, **options)
    assert two_stage_macs(rich, (3, 32, 32)).stage_2 == 16 * count_macs(network, (1, 3, 8, 8))


def test_a_threshold_needs_a_number_of_windows() -> None:
    two_stage = segmenter(StridedUNet(channels=(2, 4)), selector="threshold", n_patches=2, divisor=4)
    with pytest.raises(ValueError, match="give n_select"):
        two_stage_macs(two_stage, (3, 32, 32))
    assert two_stage_macs(two_stage, (3, 32, 32), n_select=2).stage_2 > 0
