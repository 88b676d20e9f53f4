"""A network captured for one shape: the same results, and no other image."""

import pytest
import torch
from torch import nn

from clinbundles.nets.cuda_graph import CapturedNetwork

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.mark.parametrize("device", DEVICES)
def test_results_are_the_networks_own_and_stay_when_the_next_image_comes(device: str) -> None:
    network = nn.Conv2d(3, 2, 3).to(device)
    images = torch.rand(4, 1, 3, 16, 16, device=device)
    captured = CapturedNetwork(network, images[0])
    results = [captured(image) for image in images]
    for image, result in zip(images, results, strict=True):
        torch.testing.assert_close(result, network(image).detach())
        assert not result.requires_grad


@pytest.mark.parametrize("device", DEVICES)
def test_new_values_of_the_weights_count(device: str) -> None:
    network = nn.Conv2d(3, 2, 3).to(device)
    image = torch.rand(1, 3, 16, 16, device=device)
    captured = CapturedNetwork(network, image)
    network.load_state_dict({name: torch.zeros_like(values) for name, values in network.state_dict().items()})
    assert captured(image).abs().max() == 0


@pytest.mark.parametrize("device", DEVICES)
def test_the_autocast_of_the_capture_holds(device: str) -> None:
    network = nn.Conv2d(3, 2, 3).to(device)
    image = torch.rand(1, 3, 16, 16, device=device)
    with torch.autocast(device, torch.bfloat16):
        captured = CapturedNetwork(network, image)
    assert captured(image).dtype == torch.bfloat16
    with torch.inference_mode():
        assert captured(image).dtype == torch.bfloat16


@pytest.mark.parametrize("device", DEVICES)
def test_other_images_are_refused(device: str) -> None:
    captured = CapturedNetwork(nn.Identity(), torch.rand(1, 3, 16, 16, device=device))
    for other in (torch.rand(2, 3, 16, 16), torch.rand(1, 3, 16, 16).half()):
        with pytest.raises(ValueError, match=r"captured for \(1, 3, 16, 16\), torch.float32"):
            captured(other.to(device))


@pytest.mark.parametrize("device", DEVICES)
def test_weights_that_moved_are_refused(device: str) -> None:
    network = nn.Conv2d(3, 2, 3).to(device)
    image = torch.rand(1, 3, 16, 16, device=device)
    captured = CapturedNetwork(network, image)
    network.double().float()
    with pytest.raises(ValueError, match="capture it again"):
        captured(image)
