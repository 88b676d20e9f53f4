"""The precision that is asked for inside, float32 outside; a network that sees no meta data."""

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from clinbundles.nets.inferers import PlainTensorInferer, PrecisionInferer, SlicewiseInferer


def test_the_network_computes_in_bfloat16_and_the_loss_gets_float32() -> None:
    dtypes = []
    network = nn.Conv2d(1, 1, 3)
    network.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    result = PrecisionInferer("bfloat16")(torch.rand(1, 1, 8, 8), network)
    assert dtypes == [torch.bfloat16]
    assert result.dtype == torch.float32
    result.sum().backward()
    assert network.weight.grad is not None
    assert network.weight.grad.dtype == torch.float32


def test_float32_is_exact_and_leaves_the_meta_data() -> None:
    network, image = nn.Conv2d(1, 1, 3), MetaTensor(torch.rand(1, 1, 8, 8), meta={"filename_or_obj": "a.png"})
    logits = PrecisionInferer()(image, network)
    assert torch.equal(logits, network(image))
    assert logits.meta["filename_or_obj"] == "a.png"


@pytest.mark.parametrize("inferer", [PrecisionInferer, PlainTensorInferer])
def test_another_word_and_float16_without_a_gpu_are_refused(inferer: type[PrecisionInferer]) -> None:
    with pytest.raises(ValueError, match="precision is True, expected one of float32, bfloat16, float16"):
        inferer(True)
    with pytest.raises(ValueError, match="precision is 'half'"):
        inferer("half")
    with pytest.raises(ValueError, match="needs a GPU; on a CPU take 'bfloat16'"):
        inferer("float16")(torch.rand(1, 1, 8, 8), nn.Conv2d(1, 1, 3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_float16_computes_in_float16_on_a_gpu() -> None:
    dtypes = []
    network = nn.Conv2d(1, 1, 3).cuda()
    network.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    result = PrecisionInferer("float16")(torch.rand(1, 1, 8, 8).cuda(), network)
    assert dtypes == [torch.float16]
    assert result.dtype == torch.float32


def test_the_network_gets_and_gives_plain_tensors_and_the_input_keeps_its_meta_data() -> None:
    kinds: list[type] = []
    network = nn.Conv2d(1, 2, 1)
    network.register_forward_pre_hook(lambda _, inputs: kinds.append(type(inputs[0])))
    image = MetaTensor(torch.rand(1, 1, 4, 4), meta={"filename_or_obj": "a.png"})
    logits = PlainTensorInferer()(image, network)
    assert kinds == [torch.Tensor]
    assert type(logits) is torch.Tensor
    assert torch.equal(logits, network(image.as_subclass(torch.Tensor)))
    assert image.meta["filename_or_obj"] == "a.png"


def test_losses_by_name_become_float32_and_whole_numbers_stay() -> None:
    class Losses(nn.Conv2d):
        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": super().forward(image).mean(), "cells": torch.tensor(70_001)}

    result = PrecisionInferer("bfloat16")(torch.rand(1, 1, 8, 8), Losses(1, 1, 3))
    assert result["loss"].dtype == torch.float32
    assert result["cells"] == 70_001


@pytest.mark.parametrize("as_dict", [False, True])
def test_slices_go_through_a_flat_network_a_few_at_a_time_and_come_back_in_place(as_dict: bool) -> None:
    sizes = []

    def network(x: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        sizes.append(len(x))
        result = torch.cat([x, -x], dim=1)
        return {"out": result} if as_dict else result

    volumes = MetaTensor(torch.rand(2, 1, 4, 6, 5), meta={"filename_or_obj": "a"})
    result = SlicewiseInferer(slices=4)(volumes, network)
    assert sizes == [4, 4, 2]
    assert torch.equal(result.as_tensor(), torch.cat([volumes, -volumes], dim=1).as_tensor())
    assert result.meta["filename_or_obj"] == "a"
