"""Multiply-accumulates of a network, counted without running it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from monai.networks.utils import eval_mode
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode


def count_macs(network: nn.Module, input_shape: Sequence[int]) -> int:
    """Count the multiply-accumulates of one forward pass of a network on an input of shape (B, C, *S).

    Convolutions (transposed ones by the pixels they read, which is what they multiply), matrix products and attention
    are counted, as by torch's ``FlopCounterMode``; additions of biases, activations and resampling are not. Nothing is
    computed: weights and input are replaced by tensors that have a shape alone.
    """
    counter = FlopCounterMode(display=False)
    with counter:
        output_on_meta(network, input_shape)
    return counter.get_total_flops() // 2


def count_macs_paper(network: nn.Module, input_shape: Sequence[int]) -> int:
    """Count the multiply-accumulates of a network on an input of shape (B, C, *S) by the formula of the paper.

    F F C_in H_out W_out C_out, summed over the convolutions. Transposed ones are taken by their output too, which is
    four times what those of stride 2 do in two dimensions. The authors' code prints twice this number, one for the
    multiplication and one for the addition. Blocks that are no Conv or ConvTranspose module count nothing.

    Source: Teixeira e Silva et al., Two-stage Semantic Segmentation in Neural Networks, section 5.
    """
    total = 0

    def add(module: Any, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += math.prod(module.kernel_size) * module.in_channels // module.groups * output.numel()

    kinds = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    handles = [module.register_forward_hook(add) for module in network.modules() if isinstance(module, kinds)]
    try:
        output_on_meta(network, input_shape)
    finally:
        for handle in handles:
            handle.remove()
    return total


def output_on_meta(network: nn.Module, input_shape: Sequence[int]) -> torch.Tensor:
    """Run a network on tensors that have a shape (B, C, *S) and no values, and return its output of the same kind."""
    tensors = chain(network.named_parameters(), network.named_buffers())
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
    with eval_mode(network):
        return functional_call(network, shapes, (torch.empty(tuple(input_shape), device="meta"),))
