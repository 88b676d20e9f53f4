"""bfloat16 where it is asked for, float32 outside; a network that sees no meta data."""

import torch
from monai.data import MetaTensor
from torch import nn

from clinbundles.nets.inferers import BFloat16Inferer, PlainTensorInferer


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


def test_the_network_gets_and_gives_plain_tensors_and_the_input_keeps_its_meta_data() -> None:
    seen: list[type] = []
    network = nn.Conv2d(1, 2, 1)
    network.register_forward_pre_hook(lambda _, inputs: seen.append(type(inputs[0])))
    image = MetaTensor(torch.rand(1, 1, 4, 4), meta={"filename_or_obj": "a.png"})
    logits = PlainTensorInferer()(image, network)
    assert seen == [torch.Tensor]
    assert type(logits) is torch.Tensor
    assert torch.equal(logits, network(image.as_subclass(torch.Tensor)))
    assert image.meta["filename_or_obj"] == "a.png"
