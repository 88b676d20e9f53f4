"""Deformable convolutions against ordinary ones, and ResNeSt-200 with them."""

import pytest
import timm
import torch
from torch import nn

from clinbundles.nets.cascade_mask_rcnn.resnest import DeformableConv2d, deform
from clinbundles.nets.cascade_mask_rcnn.trunks import trunk_with_pyramid

PARAMETERS = 68_152_544  # of timm's resnest200e without its last layer
OFFSETS = 6_721_866


def test_without_offsets_it_is_the_convolution_halved() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(8, 16, 3, padding=1, groups=2, bias=False)
    image = torch.randn(2, 8, 9, 11)
    torch.testing.assert_close(DeformableConv2d(convolution)(image), convolution(image) / 2)


def test_an_offset_of_one_pixel_reads_the_neighbour() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
    deformable = DeformableConv2d(convolution)
    deformable.offset.bias.data[:36] = torch.tensor([0.0, 1.0]).repeat(18)  # (y, x) of each position, in both groups
    deformable.offset.bias.data[36:] = 50  # a modulation of 1
    image = torch.randn(1, 4, 12, 12)
    moved = deformable(image)[..., 1:-1, 1:-2]
    torch.testing.assert_close(moved, convolution(image)[..., 1:-1, 2:-1], atol=1e-5, rtol=1e-5)


def test_the_two_groups_of_channels_have_offsets_of_their_own() -> None:
    deformable = DeformableConv2d(nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False))
    image = torch.randn(1, 4, 12, 12)
    before = deformable(image)
    deformable.offset.bias.data[:18] = 0.5
    changed = (deformable(image) - before).abs().amax(dim=(0, 2, 3)) > 1e-6
    assert changed.tolist() == [True, True, False, False]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
@pytest.mark.parametrize("lower", [False, True])
def test_torchscript_gives_the_same_also_under_autocast(lower: bool) -> None:
    torch.manual_seed(0)
    deformable = DeformableConv2d(nn.Conv2d(4, 4, 3, padding=1, groups=2))
    nn.init.normal_(deformable.offset.weight, std=0.5)
    image = torch.randn(1, 4, 12, 12)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=lower):
        expected, result = deformable(image), torch.jit.script(deformable)(image)
    assert expected.dtype == (torch.bfloat16 if lower else torch.float32)
    assert torch.equal(result, expected)


def test_resnest_200_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        plain = timm.create_model("resnest200e", num_classes=0)
        count = sum(parameter.numel() for parameter in plain.parameters())
        deformed = deform(plain)
    offsets = {name: p.numel() for name, p in deformed.named_parameters() if ".offset." in name}
    assert count == PARAMETERS
    assert sum(offsets.values()) == OFFSETS
    assert sum(parameter.numel() for parameter in deformed.parameters()) == PARAMETERS + OFFSETS
    assert len(offsets) == 2 * (24 + 36 + 3)


def test_its_blocks_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        network = timm.create_model("resnest200e", num_classes=0)
    assert [len(network.get_submodule(f"layer{number}")) for number in (1, 2, 3, 4)] == [3, 24, 36, 3]
    stem = [layer for layer in network.conv1 if isinstance(layer, nn.Conv2d)]
    assert [(layer.out_channels, layer.kernel_size) for layer in stem] == [(64, (3, 3)), (64, (3, 3)), (128, (3, 3))]
    block = network.layer2[0]
    assert (block.avd_last.kernel_size, block.avd_last.stride, block.avd_last.padding) == (3, 2, 1)
    shrink = block.downsample[0]
    assert (shrink.kernel_size, shrink.ceil_mode, shrink.count_include_pad) == (2, True, False)
    assert block.conv2.conv.groups == 2
    assert block.conv2.fc1.out_channels == 64
    assert network.layer1[0].avd_last is None


@pytest.mark.slow
def test_resnest_200_runs_forward_and_backward() -> None:
    torch.manual_seed(0)
    trunk = trunk_with_pyramid("resnest200", 16)
    for block in trunk.body["layer4"]:
        nn.init.ones_(block.bn3.weight)  # timm starts at 0, and no gradient would pass
    maps = trunk(torch.rand(2, 3, 64, 64))
    assert {name: tuple(values.shape) for name, values in maps.items()} == {
        "0": (2, 16, 16, 16),
        "1": (2, 16, 8, 8),
        "2": (2, 16, 4, 4),
        "3": (2, 16, 2, 2),
        "pool": (2, 16, 1, 1),
    }
    sum(values.square().mean() for values in maps.values()).backward()
    last = trunk.body["layer4"][0].conv2.conv
    assert float(last.weight.grad.abs().max()) > 0
    assert float(last.offset.weight.grad.abs().max()) > 0
    assert all(torch.isfinite(parameter.grad).all() for parameter in trunk.parameters())
