import pytest
import torch
from monai.networks.nets import BasicUNet
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from clinbundles.nets.macs import TwoStageMacs, count_macs, count_macs_paper, two_stage_macs
from clinbundles.nets.strided_unet import StridedUNet
from clinbundles.nets.two_stage import TwoStageSegmenter

COUNTS = [count_macs, count_macs_paper]


@pytest.fixture(scope="module")
def paper_net() -> StridedUNet:
    return StridedUNet()


@pytest.fixture(scope="module")
def grey_net() -> StridedUNet:
    return StridedUNet(in_channels=1)


def segmenter(network: nn.Module, **options) -> TwoStageSegmenter:
    return TwoStageSegmenter(network, network, **options)


def test_a_convolution_multiplies_its_kernel_at_every_output_pixel() -> None:
    convolution = nn.Conv2d(3, 8, 5, stride=2, padding=2)
    for count in COUNTS:
        assert count(convolution, (2, 3, 16, 16)) == 2 * (5 * 5 * 3 * 8) * 8 * 8


def test_a_transposed_convolution_multiplies_its_kernel_at_every_input_pixel() -> None:
    kernel = 3 * 3 * 4 * 6
    upward = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1)
    assert count_macs(upward, (1, 4, 8, 8)) == kernel * 8 * 8
    assert count_macs_paper(upward, (1, 4, 8, 8)) == kernel * 16 * 16


def test_volumes_groups_and_matrix_products_count_too() -> None:
    depthwise = nn.Conv3d(6, 6, 3, padding=1, groups=6)
    for count in COUNTS:
        assert count(depthwise, (1, 6, 4, 5, 7)) == 27 * 6 * 4 * 5 * 7
    assert count_macs(nn.Linear(10, 7), (3, 10)) == 3 * 10 * 7


@pytest.mark.parametrize(
    ("channels", "side", "printed_by_the_authors_code", "true"),
    [(3, 768, 239.72, 38.32), (3, 512, 106.54, 17.03), (1, 512, 106.39, 16.96), (3, 256, 26.64, 4.26)],
)
def test_the_papers_network_costs_what_the_authors_code_prints(
    channels: int, side: int, printed_by_the_authors_code: float, true: float, paper_net: nn.Module, grey_net: nn.Module
) -> None:
    network = paper_net if channels == 3 else grey_net
    shape = (1, channels, side, side)
    assert 2 * count_macs_paper(network, shape) / 1e9 == pytest.approx(printed_by_the_authors_code, abs=0.005)
    assert count_macs(network, shape) / 1e9 == pytest.approx(true, abs=0.005)


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


def test_nothing_is_computed_and_the_network_is_left_as_it_was(paper_net: StridedUNet) -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert count_macs(network, (1, 3, 10**6, 10**6)) == count_macs_paper(network, (1, 3, 10**6, 10**6)) == 6 * 10**12
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
    with pytest.raises(ValueError, match="multiple of 32"):
        count_macs_paper(paper_net, (1, 3, 33, 33))
    assert not any(module._forward_hooks for module in paper_net.modules())


def test_the_count_is_that_of_a_real_forward() -> None:
    network = BasicUNet(spatial_dims=2, in_channels=3, out_channels=1, features=(8, 8, 16, 16, 32, 8)).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(2, 3, 32, 48))
    assert count_macs(network, (2, 3, 32, 48)) == counter.get_total_flops() // 2


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
