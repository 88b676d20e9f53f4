"""The network sees no meta data, and the caller keeps them."""

import torch
from monai.data import MetaTensor
from torch import nn

from clinbundles.nets.plain_tensor_inferer import PlainTensorInferer


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
