"""The network as TorchScript: what it finds and draws, and what it refuses."""

import io
from typing import Any

import pytest
import torch

from clinbundles.nets.cascade_mask_rcnn.network import CascadeMaskRCNN

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
# MONAI saves TorchScript, and torch is about to leave it.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`torch.jit:FutureWarning")


def saved_and_loaded(network: CascadeMaskRCNN) -> Any:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(network), stream)
    stream.seek(0)
    return torch.jit.load(stream)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"min_size": 50, "max_size": 90, "n_stages": 1, "label_score_threshold": 0.0},
        {"anchor_sizes": ((8,), (16,), (16,), (32,), (64,), (128,)), "backbone": "resnet18", "box_conv_layers": 1},
    ],
)
def test_it_finds_and_draws_what_the_network_does(options: dict[str, Any], device: str, tiny_network) -> None:
    network = tiny_network(score_threshold=0.0, detections=20, **options).eval().to(device)
    torch.nn.init.normal_(network.heads.mask_head[1].mask_fcn_logits.weight, std=5)
    network.choose_label_score_threshold(0.1)
    scripted = saved_and_loaded(network)
    images = torch.rand(2, 3, 70, 90, device=device)
    labels = network(images)
    assert labels.amax(dim=(1, 2, 3)).min() > 1
    result = scripted(images)
    assert (result.dtype, result.device) == (labels.dtype, labels.device)
    assert torch.equal(result, labels)
    for found, expected in zip(scripted.detect(images), network.detections, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_it_keeps_the_least_score_of_its_weights(tiny_network) -> None:
    network = tiny_network(score_threshold=0.0, detections=20).eval()
    images = torch.rand(1, 3, 64, 64)
    found = []
    for threshold in (0.0, 1.0):
        network.choose_label_score_threshold(threshold)
        found.append(int(saved_and_loaded(network)(images).max()))
    assert found[0] > found[1] == 0


def test_it_learns_nothing_and_refuses_what_are_no_images(tiny_network) -> None:
    network = tiny_network()
    scripted = saved_and_loaded(network.eval())
    with pytest.raises(torch.jit.Error, match=r"images of shape \[3, 64, 64\]: expected floating-point"):
        scripted(torch.rand(3, 64, 64))
    for training in (scripted.train(), saved_and_loaded(network.train())):
        with pytest.raises(torch.jit.Error, match="learns nothing: set it to evaluate"):
            training(torch.rand(1, 3, 64, 64))
