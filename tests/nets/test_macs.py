import pytest
import torch
from monai.networks.nets import BasicUNet
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from clinbundles.nets.macs import count_macs, count_macs_paper
from clinbundles.nets.strided_unet import StridedUNet

COUNTS = [count_macs, count_macs_paper]


@pytest.fixture(scope="module")
def paper_net() -> StridedUNet:
    return StridedUNet()


@pytest.fixture(scope="module")
def grey_net() -> StridedUNet:
    return StridedUNet(in_channels=1)


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
