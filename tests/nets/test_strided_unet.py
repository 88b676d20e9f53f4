"""The paper's U-Net: its size, its shapes, its signal."""

import pytest
import torch

from clinbundles.nets.strided_unet import StridedUNet

NARROW = (4, 8, 16, 32, 64)


def test_the_network_has_the_papers_number_of_parameters() -> None:
    with torch.device("meta"):
        network = StridedUNet()
    assert sum(p.numel() for p in network.parameters()) == 18_842_241


@pytest.mark.parametrize(("dims", "shape"), [(2, (64, 96)), (3, (32, 64, 32))])
def test_logits_have_the_size_of_the_image(dims: int, shape: tuple[int, ...]) -> None:
    network = StridedUNet(2, 3, channels=NARROW, spatial_dims=dims)
    assert network(torch.rand(2, 2, *shape)).shape == (2, 3, *shape)


def test_a_side_that_is_no_multiple_of_32_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"48.*multiple of 32"):
        StridedUNet(channels=NARROW)(torch.rand(1, 3, 64, 48))


def test_the_signal_neither_fades_nor_grows_on_its_way_through_the_levels() -> None:
    torch.manual_seed(0)
    network = StridedUNet(channels=(16, 32, 64, 128, 256))
    features = image = torch.randn(2, 3, 128, 128)
    skips = []
    with torch.no_grad():
        for level in network.encoder:
            features = level(features)
            skips.append(features)
        for level in network.decoder:
            features = level(torch.cat([features, skips.pop()], 1))
    assert 0.3 < features.square().mean().sqrt() / image.square().mean().sqrt() < 3


def test_the_deepest_features_reach_the_first_decoder_twice() -> None:
    network = StridedUNet(channels=NARROW)
    assert network.decoder[0][0].in_channels == 2 * NARROW[-1]
    assert network.decoder[-1][0].in_channels == NARROW[0] + NARROW[0]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
def test_the_network_can_be_scripted() -> None:
    network = StridedUNet(channels=NARROW).eval()
    image = torch.rand(1, 3, 32, 64)
    torch.testing.assert_close(torch.jit.script(network)(image), network(image))


def test_a_few_steps_fit_a_bright_square() -> None:
    torch.manual_seed(0)
    network = StridedUNet(1, channels=NARROW)
    image = torch.rand(4, 1, 32, 32) * 0.3
    label = torch.zeros_like(image)
    for k in range(4):
        label[k, :, 4 * k : 4 * k + 12, 8:20] = 1
    image = image + 0.7 * label
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(network(image), label).backward()
        optimizer.step()
    assert ((network(image) > 0) == label.bool()).float().mean() > 0.95
