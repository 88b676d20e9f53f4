"""What a network costs in multiply-accumulates, without running it, and what the two stages cost together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from monai.networks.utils import eval_mode
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from .two_stage import TwoStageSegmenter


def count_macs(network: nn.Module, input_shape: Sequence[int]) -> int:
    """Network and shape (B, C, *S) of its input in; multiply-accumulates of one forward out.

    Convolutions (transposed ones by the pixels they read, which is what they multiply), matrix products and attention
    are counted, as by torch's ``FlopCounterMode``; additions of biases, activations and resampling are not. Nothing is
    computed: weights and input are replaced by tensors that have a shape alone.
    """
    counter = FlopCounterMode(display=False)
    with counter:
        _output_on_meta(network, input_shape)
    return counter.get_total_flops() // 2


def count_macs_paper(network: nn.Module, input_shape: Sequence[int]) -> int:
    """Network and shape (B, C, *S) of its input in; F F C_in H_out W_out C_out summed over its convolutions out.

    Transposed convolutions are taken by their output too, which is four times what those of stride 2 do in two
    dimensions. The authors' code prints twice this number, one for the multiplication and one for the addition. Blocks
    that are no Conv or ConvTranspose module count nothing.

    Source: Teixeira e Silva et al., Two-stage Semantic Segmentation in Neural Networks, section 5.
    """
    total = 0

    def add(module: Any, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += math.prod(module.kernel_size) * module.in_channels // module.groups * output.numel()

    kinds = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    handles = [module.register_forward_hook(add) for module in network.modules() if isinstance(module, kinds)]
    try:
        _output_on_meta(network, input_shape)
    finally:
        for handle in handles:
            handle.remove()
    return total


@dataclass(frozen=True)
class TwoStageMacs:
    """Multiply-accumulates of each stage for one image, and of the network that would see all of it at full size."""

    stage_1: int
    stage_2: int
    baseline: int

    @property
    def total(self) -> int:
        """Both stages."""
        return self.stage_1 + self.stage_2

    @property
    def ratio(self) -> float:
        """Both stages as a share of the baseline; 1/64 + 1/N_p for the paper's networks and scale."""
        return self.total / self.baseline


def two_stage_macs(
    segmenter: TwoStageSegmenter,
    image_shape: Sequence[int],
    *,
    n_select: int | None = None,
    baseline: nn.Module | None = None,
    paper_formula: bool = False,
) -> TwoStageMacs:
    """Two-stage segmenter and shape (C, *S) of one image in; what each stage costs, padding included, out.

    Args:
        segmenter: both networks with their scale, number of windows and selector.
        image_shape: channels and sides.
        n_select: windows refined; None takes what the segmenter's selector refines in every image.
        baseline: network compared with, on the whole image; None takes the network of stage 2 itself, with the channels
            of its conditioning.
        paper_formula: count by :func:`count_macs_paper` and not by :func:`count_macs`.

    Raises:
        ValueError: no ``n_select`` although the selector is "threshold", whose number of windows differs by image.
    """
    count = count_macs_paper if paper_formula else count_macs
    channels, sides = image_shape[0], image_shape[1:]
    image = torch.empty((1, *image_shape), device="meta")
    patch, _, counts = segmenter.windows(image)
    if n_select is None and segmenter.selector == "threshold":
        raise ValueError("selector 'threshold' refines another number of windows in each image: give n_select.")
    padded = [side * segmenter.n_patches for side in patch]
    if n_select is None and segmenter.selector == "budget":
        affordable = segmenter.affordable(torch.empty((1, channels, *padded), device="meta"))
        n_select = min(affordable, math.prod(counts))
    if n_select is None:
        papers = segmenter.n_patches ** (len(patch) - 1)
        n_select = segmenter.n_select if segmenter.n_select >= 0 else papers  # -1: TorchScript wants a number

    small = (1, channels, *_multiples([max(1, side // segmenter.scale) for side in padded], segmenter.divisor))
    seen = channels
    if segmenter.conditioned:
        seen += _output_on_meta(segmenter.low_net, small).shape[1]
    whole = _multiples(sides, segmenter.divisor)
    return TwoStageMacs(
        stage_1=count(segmenter.low_net, small),
        stage_2=n_select * count(segmenter.high_net, (1, seen, *patch)),
        baseline=count(segmenter.high_net, (1, seen, *whole))
        if baseline is None
        else count(baseline, (1, channels, *whole)),
    )


def _multiples(sides: Sequence[int], divisor: int) -> list[int]:
    """Sides rounded up to multiples of ``divisor``."""
    return [-(-side // divisor) * divisor for side in sides]


def _output_on_meta(network: nn.Module, input_shape: Sequence[int]) -> torch.Tensor:
    tensors = chain(network.named_parameters(), network.named_buffers())
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
    with eval_mode(network):
        return functional_call(network, shapes, (torch.empty(tuple(input_shape), device="meta"),))
