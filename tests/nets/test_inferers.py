"""bfloat16 where it is asked for, float32 outside."""

import torch
from torch import nn

from clinbundles.nets.inferers import BFloat16Inferer


def test_the_network_computes_in_bfloat16_and_the_loss_gets_float32() -> None:
    seen = []
    network = nn.Conv2d(1, 1, 3)
    network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    result = BFloat16Inferer()(torch.rand(1, 1, 8, 8), network)
    assert seen == [torch.bfloat16]
    assert result.dtype == torch.float32
    result.sum().backward()
    assert network.weight.grad is not None
    assert network.weight.grad.dtype == torch.float32


def test_switched_off_it_is_exact() -> None:
    network, image = nn.Conv2d(1, 1, 3), torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(BFloat16Inferer(enabled=False)(image, network), network(image), atol=0, rtol=0)
