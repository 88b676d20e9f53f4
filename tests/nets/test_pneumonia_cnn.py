import pytest
import torch
from torch import nn

from clinbundles.nets.pneumonia_cnn import PneumoniaCNN

TINY = {"channels": (2, 4), "dense_units": 8, "image_size": 16}


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_reconstruction_has_13_million_weights_nearly_all_of_them_in_one_layer() -> None:
    with torch.device("meta"):
        network = PneumoniaCNN(3)
    assert round(count(network) / 1e6, 2) == 13.09
    assert network.dense.linear.weight.shape == (512, 14 * 14 * 128)
    assert count(network.dense) / count(network) > 0.97


def test_an_image_becomes_a_logit_a_class() -> None:
    network = PneumoniaCNN(5, **TINY).eval()
    assert network(torch.rand(2, 3, 16, 16)).shape == (2, 5)
    assert PneumoniaCNN(2, in_channels=1, **TINY)(torch.rand(1, 1, 16, 16)).shape == (1, 2)


def test_a_side_that_does_not_halve_evenly_fits_the_dense_layer() -> None:
    network = PneumoniaCNN(3, channels=(2, 2, 2), dense_units=4, image_size=27)
    assert network(torch.rand(1, 3, 27, 27)).shape == (1, 3)


def test_logits_are_not_squashed() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        logits = PneumoniaCNN(3, **TINY).eval()(1000 * torch.randn(64, 3, 16, 16))
    assert logits.min() < -1
    assert logits.max() > 1


def test_weights_start_as_kerass_do() -> None:
    torch.manual_seed(0)
    network = PneumoniaCNN(3, channels=(8, 16), dense_units=64, image_size=32)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            receptive = layer.weight[0, 0].numel()
            fans = (layer.weight.shape[0] + layer.weight.shape[1]) * receptive
            limit = (6 / fans) ** 0.5
            assert 0.9 * limit < layer.weight.abs().max() <= limit
            assert not layer.bias.any()


def test_dropout_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    network, image = PneumoniaCNN(3, **TINY, dropout=0.5), torch.rand(1, 3, 16, 16)
    assert not torch.equal(network(image), network(image))
    network.eval()
    assert torch.equal(network(image), network(image))


@pytest.mark.parametrize("shape", [(1, 3, 8, 16), (1, 3, 16, 8), (1, 3, 32, 32)])
def test_an_image_of_another_size_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"image of {shape[3]}x{shape[2]} px, this network is made for 16 a side"):
        PneumoniaCNN(3, **TINY)(torch.rand(shape))


def test_a_size_that_the_blocks_use_up_is_refused() -> None:
    with pytest.raises(ValueError, match="image_size is 15: 4 halvings leave nothing of it"):
        PneumoniaCNN(3, image_size=15)
    assert PneumoniaCNN(3, image_size=16, dense_units=2).dense.linear.in_features == 128


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_it_can_be_scripted() -> None:
    network, image = PneumoniaCNN(3, **TINY).eval(), torch.rand(1, 3, 16, 16)
    assert torch.equal(torch.jit.script(network)(image), network(image))
