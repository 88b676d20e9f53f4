"""Tests of torchvision's FCN as a network from a tensor to a tensor."""

import torch

from clinbundles.nets.fcn import FCN


def test_logits_have_the_size_of_the_image_and_a_channel_a_class() -> None:
    network = FCN(1, 4).eval()
    with torch.no_grad():
        assert network(torch.rand(2, 1, 64, 48)).shape == (2, 4, 64, 48)


def test_a_colour_image_keeps_torchvisions_first_layer() -> None:
    assert FCN(3, 2).state_dict().keys() == FCN(1, 2).state_dict().keys()
    assert FCN(1, 2).fcn.backbone.conv1.weight.shape == (64, 1, 7, 7)
